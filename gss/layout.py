"""The files of `results/<experiment>/` that several modules name, by their paths in it. A recipe has its own beside."""

CONFIG, ORIGINS = "config.yaml", "config_origins.json"
PREPARED, MANIFEST, STATISTICS, FAULTS = (
    f"data/{name}" for name in ("prepared.json", "manifest.json", "statistics.json", "faults.txt")
)
REPORT, SEEDS_TABLE = "report.html", "seeds.csv"
SEEDS = "seeds"  # the stage that tells mean and spread of several trainings


def evaluation(model: str, split: str) -> str:
    """The folder of a model's figures on a split."""
    return f"evaluation/{model}/{split}"


def metrics(model: str, split: str) -> str:
    """The file of a model's figures on a split."""
    return f"{evaluation(model, split)}/metrics.json"


def work(stage: str) -> str:
    """The folder of a stage's checkpoints and journal; never a declared output."""
    return f"work/{stage}"


def record(rule: str) -> str:
    """What a rule's results were made with.

    Args:
        rule: name of its log and benchmark, such as `latent_prior` or `evaluate_gss_ff_test`.
    """
    return f"records/{rule}.json"
