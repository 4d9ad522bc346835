"""What `gss export` does: a model in other people's formats, by the ending of the output."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gss import layout
from gss.config import imported
from gss.data.manifest import Pair, evenly_spaced
from gss.errors import GssError
from gss.evaluate.inference import MSegInference
from gss.files import read_json, sha256_file
from gss.modelfile import load_model
from gss.stages.run import Run
from gss.use.hub import public, write_folder
from gss.use.predictor import Predictor, load

CHECKED = 8  # images an ONNX file is compared on
OTHER_FILES = (".bin", ".ckpt", ".pt", ".safetensors", ".tar", ".zip")


def export(
    run: Run,
    name: str,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    with_pixel_branch: bool = True,
    with_tokenizer: bool = False,
) -> None:
    """Write a model as a published checkpoint (`.pth`), as ONNX (`.onnx`) or as a folder for a model hub (else).

    Args:
        name: of the model, one of its recipe's.
        size: (height, width) of the images an ONNX file takes; None: the window of the protocol, or the size of the
            first image of the test or validation split.
        with_pixel_branch, with_tokenizer: of a published checkpoint, see the function of its recipe.

    Raises:
        GssError: an option that the format does not have, or what the format's own function raises.
    """
    kind = output.suffix.lower()
    if kind in OTHER_FILES:
        raise GssError(
            f"no export is written as {kind}",
            where=output,
            todo="name a file ending in .pth (published checkpoint) or .onnx, or a folder",
        )
    if size is not None and kind != ".onnx":
        raise GssError("only an ONNX file has a fixed image size", where=output, todo="leave --size out")
    if kind != ".pth" and (with_tokenizer or not with_pixel_branch):
        raise GssError(
            "--with-tokenizer and --without-pixel-branch change published checkpoints only",
            where=output,
            todo="leave them out: other exports hold the tokenizer",
        )
    if kind == ".pth":
        publish = run.experiment.kind.publish
        if publish is None:
            what = f"recipe {run.experiment.recipe!r} has no published checkpoints"
            raise GssError(what, where=output, todo="name a file ending in .onnx, or a folder")
        imported(publish)(run, name, output, with_pixel_branch=with_pixel_branch, with_tokenizer=with_tokenizer)
    elif kind == ".onnx":
        _onnx(run, name, output, size)
    else:
        _folder(run, name, output)


def _model(run: Run, name: str) -> Path:
    """The model file, with what its recipe keeps beside it."""
    for file in run.experiment.kind.beside:
        run.file(run.folder / file)
    return run.file(run.folder / f"{name}.pth")


def _folder(run: Run, name: str, output: Path) -> None:
    from gss.use.card import write_card

    path = _model(run, name)
    predictor, file = load(path), load_model(path)
    file = replace(file, meta=public(file.meta))
    found = {split: run.folder / layout.metrics(name, split) for split in ("test", "val")}
    metrics = {split: read_json(found[split]) for split in found if found[split].is_file()}
    current = {split: content for split, content in metrics.items() if content["model"]["sha256"] == file.sha256}
    write_folder(
        output,
        file,
        run.experiment.kind.part("assemble").read_beside(path.with_name),
        predictor.colours.tolist(),
        metrics=current,
        card=write_card(file, predictor, current, output.name),
    )
    print(f"wrote {output}: {', '.join(sorted(written.name for written in output.iterdir() if written.is_file()))}")
    for split in sorted(metrics.keys() - current.keys()):
        print(f"note: left out the figures on {split}: they are those of another {path.name}")
    if not current:
        print(f"note: the card has no figures: the model was not evaluated (gss evaluate {run.name} --model {name})")
    print("note: state the license of the weights in README.md before you publish the folder", flush=True)


def _onnx(run: Run, name: str, output: Path, size: tuple[int, int] | None) -> None:
    from gss.use.onnx import missing_steps, write_onnx  # its packages take seconds to load

    path = _model(run, name)
    predictor = load(path)
    pairs = _unseen(run)
    size = size or default_size(predictor, pairs[0])
    chosen = [pairs[index].image for index in evenly_spaced(len(pairs), CHECKED)]
    print(f"{path}: tracing at {size[1]} x {size[0]}", flush=True)
    origin = {"experiment": run.name, "model": name, "model_sha256": sha256_file(path)}
    agreement = write_onnx(output, predictor, size, chosen, origin)
    print(f"{agreement}\nwrote {output}: takes images of {size[1]} x {size[0]}", flush=True)
    for step in missing_steps(predictor):
        print(f"note: gss evaluate {step}; the file does not")


def _unseen(run: Run) -> Sequence[Pair]:
    """Pairs of the test split, or else of the validation split."""
    split = next(split for split in ("test", "val") if split in run.manifest.splits)
    return run.manifest.pairs(split)


def default_size(predictor: Predictor, pair: Pair) -> tuple[int, int]:
    """(height, width) of what the model sees at a time, for images like this one."""
    inference = predictor.inference
    if isinstance(inference, MSegInference):
        return inference.crop  # a smaller image gets a border
    height, width = inference.input_size(pair.height, pair.width)
    if inference.mode == "slide":
        height, width = min(height, inference.crop[0]), min(width, inference.crop[1])
    return height, width
