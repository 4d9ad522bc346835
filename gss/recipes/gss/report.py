"""What a report, and the card of an exported model, show of GSS: palette, reconstruction, networks."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gss.files import read_json, read_table
from gss.recipes.gss.layout import PALETTE, RECONSTRUCTION, ROUNDS
from gss.recipes.gss.palette.maximal import squared_distances
from gss.recipes.gss.palette.palette import IGNORE, Palette, read_palette
from gss.report.scores import training_line
from gss.results.reader import Results
from gss.text import css

if TYPE_CHECKING:
    from gss.modelfile import ModelFile

TAGS = ("generative-semantic-segmentation",)
PAIRS = 10  # closest pairs of colours named
POSTERIORS = {
    "nearest": "the nearest colour of the palette",
    "conv": "a small convolutional network",
    "window": "a small network of window attention",
}


def palette(results: Results) -> dict[str, Any]:
    """Colours, their distances, the refinement, and the reconstruction of each class.

    Raises:
        GssError: there is no palette yet.
    """
    colours = read_palette(results.folder / PALETTE)
    squared = squared_distances(colours.colours)
    nearest = squared.argmin(axis=1)
    names = (*colours.names, IGNORE)
    swatches = [
        {
            "name": name,
            "css": css(colour),
            "rgb": " ".join(map(str, colour)),
            "dark": float(np.dot(colour, (0.299, 0.587, 0.114))) < 128,  # luma
            "nearest": names[nearest[index]],
            "distance": float(squared[index, nearest[index]]) ** 0.5,
        }
        for index, (name, colour) in enumerate(zip(names, colours.colours.tolist(), strict=True))
    ]
    return {
        "swatches": swatches,
        "quality": colours.quality(),
        "pairs": _closest(colours, squared),
        "rounds": _rounds(results),
        "strategy": results.setting("palette.strategy"),
        "checks": _checks(results),
    }


def _closest(colours: Palette, squared: np.ndarray) -> list[dict[str, Any]]:
    rows, columns = np.triu_indices(len(squared), 1)
    names = (*colours.names, IGNORE)
    order = np.argsort(squared[rows, columns], kind="stable")[:PAIRS]
    return [
        {
            "names": [names[i] for i in pair],
            "css": [css(colours.colours[i]) for i in pair],
            "distance": float(squared[pair]) ** 0.5,
        }
        for pair in ((int(rows[place]), int(columns[place])) for place in order)
    ]


def _rounds(results: Results) -> list[dict[str, Any]]:
    """The rounds of the refinement with the colours each one changed; empty when none is recorded."""
    path = results.folder / ROUNDS
    if not path.is_file():
        return []
    rounds = []
    for number, rows in read_table(path).groupby("round", sort=False):
        changes = [
            {
                "name": row["class"],
                "iou": _number(row["iou"]),
                "old": css(map(int, row["old_colour"].split())),
                "new": css(map(int, row[["r", "g", "b"]])),
            }
            for _, row in rows[rows["old_colour"] != ""].iterrows()
        ]
        first = rows.iloc[0]
        kept, miou = first["kept"] == "True", _number(first["mIoU"])
        rounds.append({"number": number, "kept": kept, "mIoU": miou, "changes": changes})
    return rounds


def _number(text: str) -> float | None:
    return float(text) if text and text != "nan" else None


def _checks(results: Results) -> dict[str, Any] | None:
    """Reconstruction IoU of each class, one column per split and stride; None when it was not measured."""
    columns = [
        (split, stride, figures)
        for split, strides in reconstruction(results).items()
        for stride, figures in strides.items()
    ]
    if not columns:
        return None
    return {
        "columns": [
            {"title": f"{split}, stride {stride}", "mIoU": figures["mIoU"], "tokens": figures.get("tokens_used")}
            for split, stride, figures in columns
        ],
        "rows": [(name, [figures["IoU"].get(name) for *_, figures in columns]) for name in columns[0][2]["IoU"]],
    }


def reconstruction(results: Results) -> dict[str, Any]:
    """Split -> stride -> figures; empty when the check was not made."""
    path = results.folder / RECONSTRUCTION
    return read_json(path)["splits"] if path.is_file() else {}


def ceiling(results: Results, split: str) -> dict[str, Any] | None:
    """Reconstruction figures at the stride of the model's tokens, where they were measured."""
    return reconstruction(results).get(split, {}).get(str(results.setting("latent_prior.token_stride", 4)))


def checks(results: Results) -> list[tuple[str, str, dict[str, Any]]]:
    """Title, split and figures of each reconstruction check."""
    return [
        (f"reconstruction, stride {stride}", split, found)
        for split, strides in reconstruction(results).items()
        for stride, found in strides.items()
    ]


def facts(results: Results) -> dict[str, str]:
    """What was trained, one line each; what is not known is left out."""
    setting, found = results.setting, {}
    for part, title, what in (("latent_prior", "latent prior", "backbone.name"), ("posterior", "X⁻¹", "variant")):
        if setting(f"{part}.training") is None:
            continue
        if setting(f"{part}.checkpoint"):
            found[title] = f"imported from {setting(f'{part}.checkpoint')}"
        elif part == "posterior" and setting("posterior.experiment"):
            found[title] = f"that of {setting('posterior.experiment')}"
        elif setting(f"{part}.{what}") != "nearest":
            last = setting("latent_prior.milestones", [None])[-1]
            steps = last if part == "latent_prior" else setting("posterior.steps")
            found[title] = training_line(results, f"{part}.training", what=setting(f"{part}.{what}"), steps=steps)
    tokenizer = setting("tokenizer")
    if tokenizer:
        found["tokenizer"] = f"{tokenizer.get('vocab_size', '?')} tokens, " + (
            "imported (DALL-E)" if tokenizer.get("source") == "openai" else "trained on maskiges of the train labels"
        )
    return found


def about(file: "ModelFile") -> str:
    """What the model is, in Markdown."""
    posterior = POSTERIORS[file.meta["posterior"]["variant"] if file.kind == "gss_ft" else "nearest"]
    return (
        "Semantic segmentation with *Generative Semantic Segmentation* (Chen, Lu, Zhu and Zhang, CVPR 2023): a label "
        "is painted as a\npicture, the maskige; the network predicts the tokens of that picture from the photograph, a "
        f"discrete VAE decodes them,\nand {posterior} turns colours into classes."
    )


def network(file: "ModelFile") -> dict[str, str]:
    """Facts of the network, by term."""
    meta, config = file.meta, file.meta["provenance"]["config"]
    prior, protocol = meta["latent_prior"], meta.get("protocol", config["evaluation"])
    beyond = {
        "temperature of the tokens' mixture": protocol.get("token_temperature"),
        "weight of the classes' shares in the tokens": protocol.get("token_weight"),
        "weight of the pixel branch": protocol.get("pixel_weight"),
    }
    return {
        "encoder": prior["backbone"]["name"],
        "pretrained weights": config["latent_prior"]["backbone"].get("weights") or "none",
        "network": f"{meta['vocab_size']} tokens, one per {prior.get('token_stride', 4)} pixels in height and in width",
        **{term: str(value) for term, value in beyond.items() if value},
        "SHA-256 of the tokenizer's weights": meta["tokenizer"],
    }


SECTIONS = {"palette": ("Palette", palette)}
