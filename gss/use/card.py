"""The card of an exported model: what it is, how good, how to use it, what it is not for."""

import json
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

import gss
from gss.config import recipe_of_model
from gss.evaluate.inference import MSegInference
from gss.modelfile import ModelFile
from gss.text import css, percent
from gss.use.predictor import Predictor

_WEAK_IOU = 0.5  # classes below it are named among the limits


def write_card(file: ModelFile, predictor: Predictor, metrics: dict[str, Any], folder: str) -> str:
    """The text of README.md: front matter in YAML, then Markdown; names from data are escaped in both.

    Args:
        metrics: split -> what its `metrics.json` says.
        folder: name of the folder, for the example.
    """
    meta = file.meta
    provenance = meta["provenance"]
    config = provenance["config"]
    data = config["data"]["root"]
    recipe = recipe_of_model(file.kind)
    told, title = recipe.part("report"), f"{provenance['experiment']} {recipe.models[file.kind]}"
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "data",
            dataset_name=data,
            dataset_split=split,
            metric_type=kind,
            metric_name=key,
            metric_value=measured[key],
        )
        for split, measured in metrics.items()
        for kind, key in (("mean_iou", "mIoU"), ("mean_accuracy", "mAcc"), ("accuracy", "aAcc"))
    ]
    front = ModelCardData(
        library_name="gss",
        license="other",
        license_name="terms-of-the-training-data",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", *told.TAGS],
        model_name=title,
        eval_results=results or None,
    )
    rows = [
        {
            "id": index,
            "name": name,
            "colour": css(colour),
            "maskige": painted and css(painted),
            "iou": [percent(measured["IoU"][name], 1) for measured in metrics.values()],
        }
        for index, (name, colour, painted) in enumerate(
            zip_longest(
                predictor.classes, predictor.colours.tolist(), meta.get("palette", ())[: len(predictor.classes)]
            )
        )
    ]
    environment = provenance["environment"]
    body = _TEMPLATE.render(
        title=title,
        about=Markdown(told.about(file)),
        painted="palette" in meta,
        code=Code(folder),
        version=gss.__version__,
        metrics={
            split: {key: percent(value) if key in ("mIoU", "mAcc", "aAcc") else value for key, value in each.items()}
            for split, each in metrics.items()
        },
        classes=rows,
        protocol=_protocol(predictor),
        provenance={
            "experiment": provenance["experiment"],
            "training data": data,
            **told.network(file),
            "seed": config["seed"],
            "gss": f"{environment['gss']}, commit {environment['git']}",
            "torch, timm": f"{environment['torch']}, {environment['timm']}",
            "SHA-256 of the model file": file.sha256,
            "SHA-256 of the configuration": provenance["config_sha256"],
        },
        limits=_limits(predictor, metrics),
    )
    return str(ModelCard(f"---\n{front.to_yaml()}\n---\n\n{body}"))


def _protocol(predictor: Predictor) -> str:
    inference = predictor.inference
    size = f"fitted into {' x '.join(map(str, inference.scale))}" if inference.scale else "at its own size"
    if isinstance(inference, MSegInference):
        size = f"at the best of several sizes (`predict` takes a shorter side of {inference.base_size} pixels)"
    way = "in one pass"
    if inference.mode == "slide":
        crop, stride = (" x ".join(map(str, pair[::-1])) for pair in (inference.crop, inference.stride))
        what = "probabilities" if isinstance(inference, MSegInference) else "scores"
        way = f"in windows of {crop} pixels at steps of {stride}, whose {what} are averaged"
    flip = ", averaged with its mirror image" if inference.flip else ""
    return f"The figures were measured with the image {size}, {way}{flip}; scored at the size of the image file."


def _limits(predictor: Predictor, metrics: dict[str, Any]) -> list[str]:
    height, width = predictor.crop
    limits = [
        "It knows the classes of the table and nothing else: every pixel gets one of them, whatever it shows.",
        f"It was trained on crops of {width} x {height} pixels; images of another scale or kind than the training data "
        "were not tested.",
    ]
    for split, measured in list(metrics.items())[:1]:
        weak = [name for name, iou in measured["IoU"].items() if iou is not None and iou < _WEAK_IOU]
        if weak:
            limits.append(f"IoU below {percent(_WEAK_IOU, 0)} % on the {split} split: {', '.join(weak)}.")
    return limits


class Markdown(str):
    """Text that is markup already."""

    __slots__ = ()


class Code(str):
    """Text within a string of a program, in a fenced block, where Markdown has no escapes."""

    __slots__ = ()


def _escape(value: Any) -> str:
    """A value as Markdown shows it: in one line, no character of it being markup."""
    if isinstance(value, Markdown):
        return str(value)
    if isinstance(value, Code):
        return json.dumps(str(value), ensure_ascii=False)[1:-1].replace("`", "\\x60")
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>|!~&$@])", r"\\\1", text)


_TEMPLATE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    finalize=_escape,  # every value, without being asked
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
).get_template("card.md")
