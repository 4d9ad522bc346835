"""The command `gss VERB ...`: parses, calls the stage, sets the exit code.

Modules are imported by the verb that needs them: `gss --help` loads no torch.
"""

import argparse
import contextlib
import math
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gss
from gss.collector import spare_modules
from gss.config import RECIPES, all_models, all_stages, data_folder, imported, recipes
from gss.errors import GssError, Interrupted, OutputClosed, did_you_mean, is_no_memory
from gss.output import open_output

SOME_FAILED = 3
_RETRY = "when memory runs out, halve what is computed at a time"
# The verbs as `gss --help` shows them, each with the example of its own help; a stage that is not named: in `training`.
GROUPS = {
    "data": {
        "init": "gss init mine photos/ labels/",
        "check": "gss check mine",
        "prepare": "gss prepare ade20k",
        "labels": "gss labels mine",
        "toy-data": "gss toy-data data/toy",
        "mseg-labels": "gss mseg-labels camvid-11 ade20k-150",
    },
    "training": {
        "palette": "gss palette toy palette.seed=3",
        "tokenizer": "gss tokenizer toy",
        "reconstruct": "gss reconstruct toy reconstruction.max_rounds=0",
        "train": "gss train latent-prior toy",
        "merge": "gss merge toy",
        "import": "gss import ade20k gss_swin_l.pth --as gss_ff",
        "launch": "gss launch --work results/toy/work/posterior -- train posterior toy",
    },
    "results": {
        "evaluate": "gss evaluate toy --model gss_ff --split val",
        "summary": "gss summary mseg --model gss_ft",
        "report": "gss report toy",
        "compare": "gss compare camvid/gss_ff camvid camvid_pixel",
        "watch": "gss watch camvid_pixel/seed_0",
        "clean": "gss clean toy",
        "mlflow-sync": "gss mlflow-sync results/toy",
    },
    "use": {
        "predict": "gss predict results/toy/gss_ft.pth photos/ -o predicted",
        "export": "gss export toy -o toy.onnx",
        "benchmark": "gss benchmark toy --images 8",
    },
    "machine": {
        "doctor": "gss doctor toy",
        "smoke": "gss smoke mine",
        "completion": "gss completion bash > ~/.local/share/bash-completion/completions/gss",
        "config-reference": "gss config-reference --check",
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 done; 1 a fault of ours; 2 the user can mend it; 3 some inputs failed, the rest is done;
        75 interrupted in good order, call again to go on; 130 interrupted; 141 nobody reads the output any more.
    """
    open_output()
    spare_modules()
    try:
        try:
            return _call(arguments)
        finally:
            sys.stdout.flush()  # what cannot be written is told now, not when Python ends
    except OutputClosed as closed:
        return closed.exit_code
    except GssError as error:
        _complain(f"error: {error}")
        return error.exit_code
    except Interrupted as signal:
        _complain(str(signal))
        return signal.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except Exception as error:
        if is_no_memory(error):
            reason = str(error).partition("\n")[0] or type(error).__name__
            _complain(f"error: memory ran out: {reason}\n  to do: end other programs, or use a machine with more of it")
            return 2
        _complain(f"{traceback.format_exc()}this is a fault of gss itself; please report it with the lines above")
        return 1


def _complain(text: str) -> None:
    """Print on standard error, if it takes it."""
    with contextlib.suppress(GssError):
        print(text, file=sys.stderr, flush=True)


def _call(arguments: Sequence[str] | None) -> int:
    grammar = parser()
    given, rest = grammar.parse_known_args(arguments)
    strange = [word for word in rest if word.startswith("-") or not ("=" in word or "file" in given)]
    if strange or (rest and "overrides" not in given):
        grammar.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # words after an option: argparse of Python 3.11 takes them only before
        given.overrides = [*given.overrides, *rest]
    return given.act(given) or 0


class _Parser(argparse.ArgumentParser):
    """Names what was meant by a word that is almost one of several."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = [*map(str, action.choices or ())]
        if choices and value not in choices and (near := did_you_mean(str(value), choices)):
            raise argparse.ArgumentError(action, f"unknown: {value!r}; {near}")
        super()._check_value(action, value)


class _Help(argparse.HelpFormatter):
    """Leaves the verbs to the groups that they stand in, and the two options to the usage."""

    def add_argument(self, action: argparse.Action) -> None:
        if isinstance(action, argparse._SubParsersAction._ChoicesPseudoAction):
            super().add_argument(action)


def parser() -> argparse.ArgumentParser:
    """The whole grammar: `gss VERB EXPERIMENT [section.key=value ...]`."""
    root = _Parser(
        prog="gss",
        formatter_class=_Help,
        description=gss.__doc__,
        epilog="example: gss check toy   (most people type: snakemake results/toy/gss_ft.pth)",
    )
    finals = " or ".join(recipe.final for recipe in recipes())
    files = ", ".join(f"{model}.pth" for model in all_models())
    root.add_argument("--version", action="version", version=gss.__version__)
    verbs = root.add_subparsers(metavar="VERB", required=True)
    titled = {title: root.add_argument_group(title) for title in GROUPS}
    shown = {name: (titled[title], example) for title, names in GROUPS.items() for name, example in names.items()}

    stage = _Parser(add_help=False)
    stage.add_argument("experiment", help="name in config/experiments, or a YAML file; one with seeds: NAME/seed_0")
    stage.add_argument("overrides", nargs="*", metavar="section.key=value", help="change a value of the configuration")
    stage.add_argument("--results", type=_path, default=Path("results"), metavar="FOLDER", help="default: results")

    def verb(name: str, act: object, text: str, *parents: _Parser) -> _Parser:
        group, example = shown.get(name, (titled["training"], f"gss {name} mine"))
        added = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example: {example}",
            parents=parents,
        )
        group._group_actions.append(verbs._choices_actions[-1])
        added.set_defaults(act=act)
        return added

    begun = verb("init", _init, "write an experiment for your photographs and labels")
    begun.add_argument("name", metavar="NAME", help="of the experiment: config/experiments/NAME.yaml, or FILE.yaml")
    begun.add_argument(
        "folders",
        nargs="+",
        type=_path,
        metavar="FOLDER",
        help="of the data set, or of its parts; or a file of annotations",
    )
    begun.add_argument("--hours", type=_hours, default=1.0, metavar="H", help="that a whole run may take; default: 1")
    begun.add_argument("--recipe", choices=RECIPES, help="default: what is better in small")
    begun.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    begun.add_argument("--download", action="store_true", help="fetch weights of an encoder where there are none")
    begun.add_argument("--dry-run", action="store_true", help="only show the file")

    stages = list(all_stages().values())
    for row in stages:
        if not row.verb and row.name not in ("labels", "check", "import", "evaluate", "summary"):
            verb(row.name, _stage, row.text, stage).set_defaults(stage=row.name)
    for name, act in {"labels": _labels, "check": _check}.items():
        parted = verb(name, act, all_stages()[name].text, stage)
        parted.add_argument("--only", metavar="PART", help="`data`, or a set of evaluation.sets; default: all")
    parts = {row.trains: row.name for row in stages if row.trains}
    trained = verb("train", _train, "train a network (inside `gss launch`)")
    trained.add_argument("part", choices=[*parts], help="what to train")
    for action in stage._actions:
        trained._add_action(action)
    trained.add_argument("--until", type=int, metavar="STEP", help="latent prior: milestone to reach")
    trained.add_argument("--retry-smaller", action="store_true", help=_RETRY)
    evaluated = verb("evaluate", _evaluate, "measure a model on a split: metrics, tables, pictures", stage)
    evaluated.add_argument("--model", choices=all_models(), help=f"default: {finals}")
    evaluated.add_argument(
        "--split",
        metavar="SPLIT",
        help="val, test, or a set of evaluation.sets; default: test, or val where there is no other, and all sets",
    )
    summed = verb("summary", _summary, all_stages()["summary"].text, stage)
    summed.add_argument("--model", choices=all_models(), help=f"default: {finals}")
    importing = verb("import", _import, "make model files of checkpoints of published code")
    for action in stage._actions:
        importing._add_action(action)
        if action.dest == "experiment":
            importing.add_argument("file", nargs="?", metavar="FILE", help="default: those the configuration names")
    importing.add_argument(
        "--as", metavar="MODEL", dest="kind", help="what to make of it, such as gss_ft; default: by its keys"
    )
    exported = verb("export", _export, "write a model as published checkpoint, ONNX or hub folder", stage)
    exported.add_argument("--model", choices=all_models(), help=f"default: {finals}")
    exported.add_argument(
        "-o",
        "--output",
        type=_path,
        required=True,
        metavar="OUT",
        help="FILE.pth: checkpoint as published code writes it; FILE.onnx: ONNX; else a folder for a model hub",
    )
    exported.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="of .onnx: size of its images; default: the data set's",
    )
    exported.add_argument(
        "--without-pixel-branch", action="store_true", help="of .pth: leave out what only training uses"
    )
    exported.add_argument("--with-tokenizer", action="store_true", help="of .pth: hold the dVAE too")
    compared = verb("compare", _compare, "tell which runs differ by more than the choice of images")
    compared.add_argument(
        "runs",
        nargs="+",
        metavar="EXPERIMENT[/MODEL]",
        help=f"two or more, the baseline first; default model: {finals}; with seeds the mean of all, or NAME/seed_0",
    )
    compared.add_argument(
        "--split",
        metavar="SPLIT",
        help="val, test, or a set of evaluation.sets; default: test, or val where there is no other",
    )
    compared.add_argument(
        "-o",
        "--output",
        type=_path,
        metavar="FOLDER",
        help="for index.html, summary.csv, per_class.csv; default: in results/comparisons",
    )
    compared.add_argument("--results", type=_path, default=Path("results"), metavar="FOLDER", help="default: results")
    predicted = verb("predict", _predict, "predict the classes of images: ids, colours, overlays")
    predicted.add_argument("model", type=_path, metavar="MODEL", help=f"{files}, or a folder of gss export")
    predicted.add_argument(
        "inputs", nargs="+", type=os.path.expanduser, metavar="INPUT", help="image, folder or 'pattern'"
    )
    predicted.add_argument("-o", "--output", type=_path, required=True, metavar="FOLDER", help="where to write")
    predicted.add_argument("--scores", action="store_true", help="write the probability of every class, too")
    predicted.add_argument("--uncertainty", action="store_true", help="write how undecided the model is, too")
    predicted.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1; default: cuda where there is one")
    timed = verb("benchmark", _benchmark, "measure speed on this machine, and what takes the time", stage)
    timed.add_argument("--images", type=int, default=32, metavar="N", help="measured for each row; default: 32")
    timed.add_argument(
        "-o",
        "--output",
        type=_path,
        metavar="FILE.json",
        help="a picture goes beside it; default: benchmarks/speed.json of the results",
    )
    verb("report", _report, "write report.html, print the results and where to look", stage)

    watched = verb("watch", _watch, "show how far an experiment is, from any terminal")
    watched.add_argument("experiment", help="name in config/experiments, with seeds all of them, or NAME/seed_0")
    watched.add_argument("--results", type=_path, default=Path("results"), metavar="FOLDER", help="default: results")
    watched.add_argument("--once", action="store_true", help="say it once and end; else until all is done, or Ctrl-C")

    cleaned = verb("clean", _clean, "tell what of an experiment's results can go, or remove it")
    cleaned.add_argument("experiment", help="name in config/experiments, with seeds all of them, or NAME/seed_0")
    cleaned.add_argument("--results", type=_path, default=Path("results"), metavar="FOLDER", help="default: results")
    cleaned.add_argument("--yes", action="store_true", help="remove it")

    looked = verb("doctor", _doctor, "look whether machine, cluster and experiments are ready")
    looked.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="default: those of config/config.yaml")
    looked.add_argument("--results", type=_path, default=Path("results"), metavar="FOLDER", help="default: results")
    looked.add_argument("--cluster", action="store_true", help="try locks between two nodes, with a job of a second")

    tried = verb("smoke", _smoke, "try every stage with two steps and two images", stage)
    tried.add_argument("--retry-smaller", action="store_true", help=_RETRY)

    launched = verb("launch", _launch, "run a verb in many processes, in a SLURM job on its nodes")
    launched.add_argument("--nodes", type=int, default=1, metavar="N", help="machines of the SLURM job; default: 1")
    launched.add_argument(
        "--nproc", type=_count, metavar="P", help="processes on each machine; default: one per GPU, without GPUs one"
    )
    launched.add_argument("--work", type=_path, required=True, metavar="FOLDER", help="work folder of the stage")
    launched.add_argument("--cpus", type=int, metavar="C", help="cores shared by a node's processes; default: all")
    launched.add_argument("--gpus", type=_count, metavar="G", help="GPUs on each machine; 0: none; default: all there")
    launched.add_argument("--divided", type=int, metavar="B", help="a batch that the processes divide evenly")
    launched.add_argument("--log", type=_path, metavar="FILE", help="append to it; earlier starts are kept")
    launched.add_argument("command", nargs=argparse.REMAINDER, metavar="-- VERB ...", help="the verb to run")

    synced = verb("mlflow-sync", _mlflow_sync, "deliver journals to MLflow")
    synced.add_argument("folder", nargs="*", type=_path, help="results folders of experiments; default: all in results")
    synced.add_argument("--follow", action="store_true", help="go on until Ctrl-C or SIGTERM")
    synced.add_argument("--parent", type=int, metavar="PID", help=argparse.SUPPRESS)  # end with this process
    made = verb("toy-data", _toy_data, "write the built-in synthetic data set")
    made.add_argument("folder", type=_path, help="where to")
    labelled = verb("mseg-labels", _mseg_labels, "make MSeg's labels of those its data sets come with")
    labelled.add_argument("sets", nargs="+", metavar="SET", help="such as camvid-11, ade20k-150, ade20k-150-relabeled")
    labelled.add_argument("--root", type=_path, metavar="FOLDER", help="of all sets; default: mseg_dataset in GSS_DATA")
    labelled.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes; default: all cores"
    )
    completed = verb("completion", _completion, "print a shell's completion of verbs, options, experiments")
    completed.add_argument("shell", choices=("bash", "zsh"), help="whose language")
    described = verb("config-reference", _config_reference, "write config/schema.json and docs/reference/config.md")
    described.add_argument("--check", action="store_true", help="only say whether they are up to date")
    return root


def _init(given: argparse.Namespace) -> None:
    from gss.init.init import init

    print(
        init(
            given.name,
            given.folders,
            hours=given.hours,
            recipe=given.recipe,
            device=given.device,
            download=given.download,
            dry_run=given.dry_run,
        )
    )


def _run(given: argparse.Namespace) -> Any:
    from gss.stages.run import Run

    return Run.open(given.experiment, given.overrides, given.results)


def _stage(given: argparse.Namespace) -> None:
    _call_stage(_run(given), given.stage)


def _train(given: argparse.Namespace) -> None:
    name = next(row.name for row in all_stages().values() if row.trains == given.part)
    until = {} if given.until is None else {"until": given.until}
    _call_stage(_run(given), name, retry=given.retry_smaller, **until)


def _evaluate(given: argparse.Namespace) -> None:
    run = _run(given)
    model, sets = _model(run, given.model), run.experiment.evaluation.sets
    splits = [given.split] if given.split else [run.experiment.last_split, *sets]
    for split in splits:
        _call_stage(run, "evaluate", model, split, work=f"evaluate_{model}_{split}")
    if sets and not given.split and os.environ.get("RANK", "0") == "0":  # the main process has written all figures
        _call_stage(run, "summary", model)


def _summary(given: argparse.Namespace) -> None:
    run = _run(given)
    _call_stage(run, "summary", _model(run, given.model))


def _labels(given: argparse.Namespace) -> None:
    run = _run(given)
    experiment, make = run.experiment, imported("gss.stages.labels:labels")
    annotated = {"data": experiment.data.annotated}
    annotated |= {name: found.annotations is not None for name, found in experiment.evaluation.sets.items()}
    chosen = _parts(run, given.only)
    for part in [part for part in chosen if annotated[part]] or chosen[:1]:
        make(run, None if part == "data" else part)


def _check(given: argparse.Namespace) -> None:
    run = _run(given)
    for part in _parts(run, given.only):
        if part == "data":
            _call_stage(run, "check")
        else:
            imported("gss.stages.check:check_set")(run, part)


def _parts(run: Any, only: str | None) -> list[str]:
    """The data set and the sets that are meant.

    Raises:
        GssError: there is none of this name.
    """
    parts = ["data", *run.experiment.evaluation.sets]
    if only not in (None, *parts):
        raise GssError(f"no set {only!r}; there are: {', '.join(parts)}")
    return [part for part in parts if only in (None, part)]


def _call_stage(
    run: Any, name: str, *arguments: Any, work: str | None = None, retry: bool = False, **options: Any
) -> None:
    """Call a stage as its row says.

    Args:
        work: name of its work folder, where it has several.
        retry: with less at a time when memory runs out.
    """
    row = run.experiment.kind.stage(name)
    if not row.in_processes:
        imported(row.call)(run, *arguments, **options)
        return
    from gss.stages.memory import stage_worker, with_less_memory

    with stage_worker(run, name, work) as world:
        if retry:
            with_less_memory(run, name, world, lambda run: imported(row.call)(run, world, **options))
        else:
            imported(row.call)(run, world, *arguments, **options)


def _model(run: Any, name: str | None) -> str:
    """The model that is meant.

    Raises:
        GssError: the recipe has none of this name.
    """
    recipe = run.experiment.kind
    if name is not None and name not in recipe.models:
        raise GssError(f"recipe {recipe.name!r} has no model {name!r}; it has {', '.join(recipe.models)}")
    return name or recipe.final


def _import(given: argparse.Namespace) -> None:
    words = [word for word in (given.file, *given.overrides) if word]
    files = [Path(word) for word in words if "=" not in word]
    given.overrides = [word for word in words if "=" in word]
    if len(files) > 1:
        raise GssError(f"one checkpoint at a time, not {len(files)}: {', '.join(map(str, files))}")
    run = _run(given)
    imported(run.experiment.kind.stage("import").call)(run, files[0] if files else None, given.kind)


def _export(given: argparse.Namespace) -> None:
    from gss.use.export import export

    run = _run(given)
    export(
        run,
        _model(run, given.model),
        given.output,
        size=given.size,
        with_pixel_branch=not given.without_pixel_branch,
        with_tokenizer=given.with_tokenizer,
    )


def _path(text: str) -> Path:
    """A path in which `~` is the home folder; shells leave it in `--results=~/results` as it is."""
    return Path(os.path.expanduser(text))


def _size(text: str) -> tuple[int, int]:
    """(height, width) of `WIDTHxHEIGHT`."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 480x360")
    return int(height), int(width)


def _hours(text: str) -> float:
    """A number of hours above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (hours := float(text)) < math.inf:
            return hours
    raise argparse.ArgumentTypeError(f"{text!r} is no number of hours, such as 0.5")


def _count(text: str) -> int | None:
    """A number; None: `auto`."""
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor `auto`")
    return None if text == "auto" else int(text)


def _predict(given: argparse.Namespace) -> int:
    from gss.use.folder import predict_files

    failed = predict_files(
        given.model,
        given.inputs,
        given.output,
        device=given.device,
        scores=given.scores,
        uncertainty=given.uncertainty,
    )
    return SOME_FAILED if failed else 0


def _benchmark(given: argparse.Namespace) -> None:
    from gss.benchmark.benchmark import benchmark

    print(benchmark(_run(given), given.images, given.output))


def _report(given: argparse.Namespace) -> None:
    from gss.config import experiment_name, results_name, seed_folders
    from gss.report.page import READ, write_report
    from gss.report.seeds import write_seeds
    from gss.report.summary import summary

    if given.overrides:
        run = _run(given)
        folder = run.folder
        for file in READ if folder.is_dir() else ():
            run.file(folder / file)
    elif "+" in given.experiment:
        folder = given.results / results_name(given.experiment)
    else:
        folder = given.results / experiment_name(given.experiment)
    if seeds := seed_folders(folder):
        print(write_seeds(folder, seeds))
        return
    page = write_report(folder)
    print(summary(folder, page))


def _compare(given: argparse.Namespace) -> None:
    from gss.compare.compare import compare

    print(compare(given.runs, split=given.split, output=given.output, results=given.results))


def _watch(given: argparse.Namespace) -> None:
    from gss.watch.watch import watch

    watch(given.experiment, given.results, once=given.once)


def _clean(given: argparse.Namespace) -> None:
    from gss.clean import clean

    print(clean(given.experiment, given.results, remove=given.yes))


def _doctor(given: argparse.Namespace) -> int:
    from gss.doctor.doctor import doctor

    return doctor(given.experiments, given.results, cluster=given.cluster)


def _smoke(given: argparse.Namespace) -> None:
    from gss.smoke import smoke

    print(smoke(given.experiment, given.overrides, given.results, retry=given.retry_smaller))


def _launch(given: argparse.Namespace) -> int:
    from gss.cluster.launch import launch
    from gss.cluster.log import keep_log

    if given.log:
        keep_log(given.log)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    return launch(
        given.nproc,
        command,
        work=given.work,
        nodes=given.nodes,
        cpus=given.cpus,
        gpus=given.gpus,
        divided=given.divided or None,
        log=given.log,
    )


def _mlflow_sync(given: argparse.Namespace) -> None:
    from gss.cluster.exit import die_with
    from gss.tracking.mlflow_sync import follow, sync

    if given.parent:
        die_with(given.parent, signal.SIGTERM)
    if given.follow:
        follow(given.folder)
    else:
        print(f"MLflow has all numbers of {sync(given.folder)} experiments")


def _toy_data(given: argparse.Namespace) -> None:
    from gss.data.toy import make_toy

    make_toy(given.folder)


def _mseg_labels(given: argparse.Namespace) -> None:
    from gss.data.mseg.prepare import prepare

    for name in given.sets:
        prepare(name, given.root or data_folder() / "mseg_dataset", min(given.workers, len(os.sched_getaffinity(0))))


def _completion(given: argparse.Namespace) -> None:
    import shtab

    root = parser()
    (verbs,) = (action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    for verb in verbs.choices.values():
        for action in verb._actions:
            if action.dest in ("experiment", "experiments", "runs"):
                action.complete = _EXPERIMENTS  # type: ignore[attr-defined]
            elif action.type is _path or action.dest in ("inputs", "file"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(root, given.shell, preamble=_EXPERIMENT_NAMES[given.shell]))


# Experiments of the project folder that the shell is in.
_EXPERIMENTS = {"bash": "_gss_experiments", "zsh": "_gss_experiments"}
_EXPERIMENT_NAMES = {
    "bash": """
_gss_experiments() {
  compgen -W "$(cd config/experiments 2> /dev/null && ls *.yaml 2> /dev/null | sed 's/\\.yaml$//')" -- "$1"
}
""",
    "zsh": """
_gss_experiments() {
  compadd -- config/experiments/*.yaml(N:t:r)
}
""",
}


def _config_reference(given: argparse.Namespace) -> int:
    from gss.config.reference import write_reference

    return write_reference(check=given.check)
