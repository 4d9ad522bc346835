"""The last stage: the figures of a model on a split."""

import numpy as np

from gss import layout
from gss.data.images import write_png
from gss.data.loader import read_pair
from gss.data.manifest import evenly_spaced
from gss.evaluate.inference import Inference, extra_pictures
from gss.evaluate.measure import evaluate_pairs
from gss.evaluate.pictures import panel, picture_name
from gss.evaluate.plots import iou_bars
from gss.evaluate.write import write_evaluation
from gss.files import remove
from gss.layout import MANIFEST
from gss.modelfile import load_model
from gss.stages.run import Run
from gss.train.distributed import World


def evaluate(run: Run, world: World, name: str, split: str) -> None:
    """Measure a model on a split and write the files of `evaluation/<name>/<split>/`.

    Beside the declared ones stay `predictions/` (ids of 8 or 16 bits, one PNG per image), and of the images drawn in
    `pictures/` what the model shows beside its prediction, such as the decoded maskige in `maskiges/`: who compares or
    shows results needs no model.

    Args:
        name: of the model, one of its recipe's.
        split: `val` or `test`.
    """
    experiment, recipe = run.experiment, run.experiment.kind
    experiment.require_split(split, run.name)
    config, assemble = experiment.evaluation, recipe.part("assemble")
    path = run.file(run.folder / f"{name}.pth")
    folder = run.folder / layout.evaluation(name, split)
    file = load_model(path, name)
    inputs = run.inputs(*(run.folder / file for file in (MANIFEST, *recipe.beside)), path, world=world)
    beside = assemble.read_beside(lambda name: run.file(run.folder / name))
    model = assemble.build_segmenter(file, beside, protocol=experiment.protocol(), where=path, device=world.device)
    names, palette, space = file.meta["classes"], file.meta.get("palette"), run.space
    colours = file.meta.get("colours", space.colours)  # files of version 0.1.0 have none of their own
    inference = Inference(config.mode, config.crop, config.stride, config.scale, config.flip)
    todo = "evaluate it on the data set it was trained for, or train it again"
    space.require_names(names, where=path, todo=todo)
    pairs = run.manifest.pairs(split)
    drawn = set(evenly_spaced(len(pairs), config.pictures))

    def keep(index: int, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> None:
        source = pairs[index].image
        png = picture_name(index, source)
        write_png(folder / "predictions" / png, prediction)
        if index in drawn:
            extras = extra_pictures(model, image, inference, device=world.device)
            for extra, picture in extras.items():
                write_png(folder / f"{extra}s" / png, picture)
            panel(
                folder / "pictures" / png,
                image=image,
                label=label,
                prediction=prediction,
                extras=extras,
                palette=palette,
                names=names,
                colours=colours,
                title=f"{name} {split} {source.stem}",
            )

    with run.stage("evaluate", inputs, world=world, name=f"evaluate_{name}_{split}") as journal:
        if world.is_main:  # figures first: an evaluation that is cut off must not leave them beside other pictures
            remove(folder / "metrics.json", folder)
        world.barrier()
        evaluation = evaluate_pairs(
            model,
            pairs,
            len(names),
            world,
            read=read_pair,
            inference=inference,
            each=keep,
            title=f"{name} {split}",
        )
        if journal is None:
            return
        iou_bars(folder / "iou.png", names, {name: list(evaluation.scores.iou)})
        metrics = write_evaluation(
            folder,
            evaluation,
            names,
            protocol={
                **inference.as_dict(),
                **model.protocol,
                "numerics": experiment.numerics,
            },
            model=path,
            model_sha256=file.sha256,
            manifest_sha256=run.manifest.sha256,
        )
        found = {f"{split}/{key}": metrics[key] for key in ("mIoU", "mAcc", "aAcc")}
        found |= {f"{split}/iou/{key}": value for key, value in metrics["IoU"].items()}
        found |= {f"{split}/acc/{key}": value for key, value in metrics["Acc"].items()}
        journal.figures({key: value for key, value in found.items() if value is not None})
        for artifact in ("metrics.json", "per_class.csv", "iou.png"):
            journal.artifact(folder / artifact)
        print(
            f"{name} on {split}: mIoU {metrics['mIoU']:.4f}  mAcc {metrics['mAcc']:.4f}  aAcc {metrics['aAcc']:.4f}  "
            f"({metrics['images']} images)",
            flush=True,
        )
