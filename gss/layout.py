"""The files of `results/<experiment>/` that several modules name, by their paths in it. A recipe has its own beside."""

CONFIG, ORIGINS = "config.yaml", "config_origins.json"
PREPARED, MANIFEST, STATISTICS, FAULTS = (
    f"data/{name}" for name in ("prepared.json", "manifest.json", "statistics.json", "faults.txt")
)
REPORT, SEEDS_TABLE = "report.html", "seeds.csv"
WORK = "work"  # checkpoints and journals, by stage; never a declared output
SEEDS = "seeds"  # the stage that tells mean and spread of several trainings


def evaluation(model: str, split: str) -> str:
    """The folder of a model's figures on a split."""
    return f"evaluation/{model}/{split}"


def metrics(model: str, split: str) -> str:
    """The file of a model's figures on a split."""
    return f"{evaluation(model, split)}/metrics.json"
