"""What a report, and the card of an exported model, show of the network."""

from typing import TYPE_CHECKING, Any

from gss.report.scores import training_line
from gss.results.reader import Results

if TYPE_CHECKING:
    from gss.modelfile import ModelFile

TAGS = ()
SECTIONS: dict[str, Any] = {}
_HEADS = {
    "plain": "sum of four levels",
    "fcn": "concatenation of four levels",
    "hrnet": "HRNetV2",
    "upernet": "UPerNet",
    "psp": "PSPNet",
}


def checks(results: Results) -> list[tuple[str, str, dict[str, Any]]]:
    """Nothing is measured before the network."""
    return []


def ceiling(results: Results, split: str) -> None:
    """Nothing bounds the network."""


def facts(results: Results) -> dict[str, str]:
    """What was trained, in one line."""
    if results.setting("pixel.training") is None:
        return {}
    if imported := results.setting("pixel.checkpoint"):
        return {"network": f"imported from {imported}"}
    head, channels = results.setting("pixel.head", "plain"), results.setting("pixel.channels")
    what = f"{results.setting('pixel.backbone.name')} with head {head} ({channels})"
    steps = results.setting("pixel.steps")
    return {"network": training_line(results, "pixel.training", what=what, steps=steps)}


def about(file: "ModelFile") -> str:
    """What the model is, in Markdown."""
    return (
        "Semantic segmentation with a per-pixel network: an image encoder gives four maps, a head joins them and "
        "scores every class\nat every pixel."
    )


def network(file: "ModelFile") -> dict[str, str]:
    """Facts of the network, by term."""
    provenance = file.meta["provenance"]
    imported, pretrained = provenance.get("checkpoint"), provenance["config"]["pixel"]["backbone"].get("weights")
    head, auxiliary = file.meta["pixel"].get("head", "plain"), file.meta["pixel"].get("auxiliary")
    return {
        "encoder": file.meta["pixel"]["backbone"]["name"],
        "pretrained weights": f"all, imported from {imported}" if imported else pretrained or "none",
        "head": f"{_HEADS[head]}, {file.meta['pixel']['channels']} channels",
        **({"auxiliary head": f"{auxiliary['channels']} channels, in training only"} if auxiliary else {}),
    }
