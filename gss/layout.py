"""The files of `results/<experiment>/` that several modules name, by their paths in it. A recipe has its own beside."""

from pathlib import Path

CONFIG, ORIGINS = "config.yaml", "config_origins.json"
PREPARED, LABELS, MANIFEST, STATISTICS, FAULTS = (
    f"data/{name}" for name in ("prepared.json", "labels.json", "manifest.json", "statistics.json", "faults.txt")
)
OVERVIEW = "overview.html"  # beside a manifest
ANNOTATED = "annotated"  # beside LABELS: the label files of each source, and pictures that annotations hold
LISTS = "data/lists"  # which image is in which split, where the check has divided them
RELABELLED = "relabelled"  # the split of a set's manifest that has its other labels
REPORT, SEEDS_TABLE = "report.html", "seeds.csv"
SUMMARY = "evaluation/*/summary.json"  # of a model, on the sets of `evaluation.sets`
WORK = "work"  # checkpoints and journals, by stage; never a declared output
SEEDS = "seeds"  # the stage that tells mean and spread of several trainings


def evaluation(model: str, split: str) -> str:
    """The folder of a model's figures on a split."""
    return f"evaluation/{model}/{split}"


def of_set(name: str) -> tuple[str, str, str]:
    """Of a set of `evaluation.sets`: its manifest, its statistics, and what the model's classes become there."""
    return (f"data/sets/{name}/manifest.json", f"data/sets/{name}/statistics.json", f"data/sets/{name}/taxonomy.csv")


def labels_of_set(name: str) -> str:
    """Of a set of `evaluation.sets` with annotations: what label files were made of these."""
    return f"data/sets/{name}/labels.json"


def metrics(model: str, split: str) -> str:
    """The file of a model's figures on a split."""
    return f"{evaluation(model, split)}/metrics.json"


def all_metrics(folder: Path, split: str) -> list[Path]:
    """The figures that are there on a split, of all models and seeds of an experiment with these results."""
    return [path for seed in ("", "seed_*/") for path in sorted(folder.glob(f"{seed}{metrics('*', split)}"))]
