"""The last stages: the figures of a model on a split or a test set, and what sums up those on all test sets."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gss import layout
from gss.config import data_folder
from gss.data.classes import ClassSpace, default_colours
from gss.data.images import write_png
from gss.data.loader import read_pair, read_pair_label
from gss.data.manifest import Manifest, evenly_spaced, read_manifest
from gss.data.metrics import Absent, Counted
from gss.errors import ConfigError, DataError
from gss.evaluate.inference import Inference, MSegInference, extra_pictures, inferences, uncertainty_picture
from gss.evaluate.measure import Evaluation, evaluate_pairs
from gss.evaluate.pictures import panel, picture_name
from gss.evaluate.plots import iou_bars, reliability_diagram
from gss.evaluate.taxonomy import Target
from gss.evaluate.write import write_evaluation, write_summary
from gss.files import read_json, read_table, remove
from gss.layout import MANIFEST, RELABELLED
from gss.modelfile import load_model
from gss.results import reader
from gss.results.oracle import read_oracle
from gss.stages import base_sizes
from gss.stages.check import in_training, told_of_training
from gss.stages.run import Run
from gss.text import percent
from gss.train.distributed import World


@dataclass(frozen=True)
class _Measured:
    """What a model is measured on.

    Args:
        split: of the manifest.
        classes: that the model has to be made for.
        target: the classes of a test set, of which the labels are; None: they are those of the model.
        absent: what a class that is nowhere is in means.
        counted: the classes that are in means.
        protocol: what of it decides the figures, JSON values.
        trained_on: its images that are in the training data.
    """

    manifest: Manifest
    split: str
    classes: ClassSpace
    target: Target | None = None
    absent: Absent = "nan"
    counted: Counted = None
    protocol: dict[str, Any] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)


def evaluate(run: Run, world: World, name: str, split: str) -> None:
    """Measure a model on a split or a test set and write the files of `evaluation/<name>/<split>/`.

    Beside the declared ones stay `predictions/` (ids of 8 or 16 bits, one PNG per image), and of the images drawn in
    `pictures/` the uncertainty among the model's classes in `uncertainties/`, and what the model shows beside its
    prediction, such as the decoded maskige in `maskiges/`: who compares or shows results needs no model.

    Args:
        name: of the model, one of its recipe's.
        split: `val`, `test` or a name of `evaluation.sets`.
    """
    experiment, recipe = run.experiment, run.experiment.kind
    experiment.require_split(split, run.name)
    config, assemble = experiment.evaluation, recipe.part("assemble")
    path = run.file(run.folder / f"{name}.pth")
    folder = run.folder / layout.evaluation(name, split)
    file = load_model(path, name)
    is_set = split in config.sets
    manifest, _, taxonomy = layout.of_set(split)
    files = (manifest, taxonomy) if is_set else (MANIFEST,)
    inputs = run.inputs(*(run.folder / file for file in (*files, *recipe.beside)), path, world=world)
    measured = _test_set(run, split) if is_set else _Measured(run.manifest, split, run.space)
    beside = assemble.read_beside(lambda name: run.file(run.folder / name))
    model = assemble.build_segmenter(file, beside, protocol=experiment.protocol(), where=path, device=world.device)
    names, palette = file.meta["classes"], file.meta.get("palette")
    colours = file.meta.get("colours", measured.classes.colours)  # files of version 0.1.0 have none of their own
    todo = "evaluate it on the data set it was trained for, or train it again"
    measured.classes.require_names(names, where=path, todo=todo)
    if measured.target:
        names, palette = measured.target.names, None
        colours = measured.manifest.space.colours or default_colours(len(names))
    pairs = measured.manifest.pairs(measured.split)
    others = measured.manifest.pairs(RELABELLED) if RELABELLED in measured.manifest.splits else None

    def read(index: int) -> tuple[np.ndarray, ...]:
        both = read_pair(pairs[index])
        return both if others is None else (*both, read_pair_label(others[index]))

    drawn = set(evenly_spaced(len(pairs), config.pictures))

    def measure(inference: Inference, folder: Path) -> Evaluation:
        """Predictions, and what is drawn, go into the folder."""

        def keep(index: int, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> None:
            source = pairs[index].image
            png = picture_name(index, source)
            write_png(folder / "predictions" / png, prediction)
            if index in drawn:
                uncertainty = uncertainty_picture(model, image, inference, device=world.device)
                write_png(folder / "uncertainties" / png, uncertainty)
                extras = extra_pictures(model, image, inference, device=world.device)
                for extra, picture in extras.items():
                    write_png(folder / f"{extra}s" / png, picture)
                panel(
                    folder / "pictures" / png,
                    image=image,
                    label=label,
                    prediction=prediction,
                    extras={name: extras[name] for name in extras if not name.startswith("uncertainty")},
                    palette=palette,
                    names=names,
                    colours=colours,
                    title=f"{name} {split} {source.stem}",
                )

        size = f" at {inference.base_size}" if isinstance(inference, MSegInference) else ""
        return evaluate_pairs(
            model,
            range(len(pairs)),
            len(names),
            world,
            read=read,
            inference=inference,
            target=measured.target,
            is_relabelled=others is not None,
            with_reliability=measured.target is None,
            each=keep,
            title=f"{name} {split}{size}",
        )

    ways, work = inferences(config), run.work(f"evaluate_{name}_{split}")
    several = config.protocol == "mseg"
    with run.stage("evaluate", inputs, world=world, name=work.name, split=split) as journal:
        if world.is_main:  # figures first: an evaluation that is cut off must not leave them beside other pictures
            remove(folder / "metrics.json", folder)
        world.barrier()
        counts = base_sizes.measure_each(ways, measure, work, world) if several else {0: measure(ways[0], folder)}
        if journal is None:
            return
        means: dict[str, Any] = {"absent": measured.absent, "counted": measured.counted}
        evaluations = {size: replace(found, **means) for size, found in counts.items()}
        chosen = base_sizes.best(evaluations)
        evaluation = evaluations[chosen]
        if several:
            base_sizes.take(chosen, work, folder)
        iou_bars(folder / "iou.png", names, {name: list(evaluation.scores.iou)})
        reliability = evaluation.reliability
        if reliability is not None:
            reliability_diagram(folder / "reliability.png", reliability.confidence.sum(0), f"{name} {split}")
        metrics = write_evaluation(
            folder,
            evaluation,
            names,
            protocol={
                **ways[0].as_dict(),
                **({"base_sizes": list(config.base_sizes)} if several else {}),
                **model.protocol,
                "numerics": experiment.numerics,
                **measured.protocol,
            },
            model=path,
            model_sha256=file.sha256,
            manifest_sha256=measured.manifest.sha256,
            base_sizes=evaluations if several else {},
            trained_on=measured.trained_on,
        )
        if measured.trained_on:
            print(f"warning: {told_of_training(measured.trained_on, split)}", flush=True)
        if several:
            base_sizes.clear(evaluations, work)
        found = {f"{split}/{key}": metrics[key] for key in ("mIoU", "mAcc", "aAcc")}
        found |= {f"{split}/{key}": metrics.get(key) for key in ("ECE", "errors_in_most_uncertain_tenth")}
        found |= {f"{split}/iou/{key}": value for key, value in metrics["IoU"].items()}
        found |= {f"{split}/acc/{key}": value for key, value in metrics["Acc"].items()}
        found |= {f"{split}/mIoU_{size}": each["mIoU"] for size, each in metrics.get("base_sizes", {}).items()}
        journal.figures({key: value for key, value in found.items() if value is not None})
        calibration = ("reliability.csv", "reliability.png") if reliability is not None else ()
        for artifact in ("metrics.json", "per_class.csv", "iou.png", *calibration):
            journal.artifact(folder / artifact)
        if several:
            each = ", ".join(f"{percent(found.scores.mIoU, 2)} at {size}" for size, found in evaluations.items())
            print(f"{name} on {split}: mIoU {each}; the best counts", flush=True)
        shown = "  ".join(f"{key} {_fraction(metrics[key])}" for key in ("mIoU", "mAcc", "aAcc"))
        print(f"{name} on {split}: {shown}  ({metrics['images']} images)", flush=True)


def _fraction(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _test_set(run: Run, name: str) -> _Measured:
    """A set of `evaluation.sets`, as it was checked."""
    config = run.experiment.evaluation.sets[name]
    manifest_file, _, taxonomy_file = (run.file(run.folder / file) for file in layout.of_set(name))
    manifest = read_manifest(manifest_file)
    manifest = manifest.at(data_folder() / manifest.root, data_folder())
    names = manifest.space.names
    table = read_table(taxonomy_file)
    becomes = dict(zip(table["model"], table["set"], strict=True))
    target = Target.of(names, [names.index(name) if name else None for name in becomes.values()], config.prediction)
    split, *others = manifest.splits
    counted = frozenset(manifest.space.reached) if config.counted == "mapped" else None
    protocol = {
        "prediction": config.prediction,
        "absent": config.absent,
        "counted": None if counted is None else [names[index] for index in sorted(counted)],
        RELABELLED: bool(others),
        "mapping": {name: target or None for name, target in becomes.items()},
    }
    trained_on = in_training(run, manifest.rows[split])
    return _Measured(manifest, split, ClassSpace(tuple(becomes)), target, config.absent, counted, protocol, trained_on)


def summarise(run: Run, name: str) -> None:
    """Write `evaluation/<name>/summary.json` and `.csv`: a model's figures on all of `evaluation.sets`.

    Args:
        name: of the model, one of its recipe's.

    Raises:
        ConfigError: there are no sets.
        DataError: the model was not measured on one of them, or another model was.
    """
    sets = run.experiment.evaluation.sets
    if not sets:
        raise ConfigError("there is nothing to sum up", where="evaluation.sets", todo="name test sets there")
    files = {split: run.folder / layout.metrics(name, split) for split in sets}
    inputs = run.inputs(*files.values())
    figures = {split: read_json(file) for split, file in files.items()}
    models = {split: found["model"]["sha256"] for split, found in figures.items()}
    first, *others = models
    for split in others:
        if models[split] != models[first]:
            raise DataError(
                f"{split} was measured with another {name}.pth than {first}",
                where=files[split],
                todo=f"gss evaluate {run.name} --model {name}",
            )
    output = run.folder / layout.SUMMARY.replace("*", name)
    results, oracles, read = run.results, {}, []
    for split, found in sets.items():
        if found.oracle:
            folder, of = results / found.oracle, next(iter(found.splits))
            beside = reader.Evaluation(name, split, figures[split], files[split].parent)
            oracles[split] = read_oracle(folder, beside, of)
            read += layout.all_metrics(folder, of)
    with run.stage("summary", inputs, name=f"summary_{name}", looked_into=read) as journal:
        assert journal is not None
        summary = write_summary(output, figures, oracles)
        journal.figures({"h_mean": summary["h_mean"]} if summary["h_mean"] is not None else {})
    for split, oracle in oracles.items():
        said = oracle.get("missing") or f"mIoU {percent(oracle['mIoU'], 2)}"
        print(f"oracle of {split}, {oracle['experiment']}: {said}", flush=True)
    for split in summary.get("without_h_mean", ()):
        print(f"no harmonic mean: the mIoU of {split} is {figures[split]['mIoU']}", flush=True)
    print(f"{name} on {len(sets)} sets: h_mean {percent(summary['h_mean'], 2)}", flush=True)
