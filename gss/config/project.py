"""What is said once for all experiments: config/config.yaml, and the cluster of a Snakemake profile."""

from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from gss.config.names import Name, Place, run_parts
from gss.config.recipe import all_stages, recipes
from gss.config.schema import Positive, Resources, Section


def _known_stage(name: str) -> str:
    if name not in all_stages():
        raise ValueError(f"no stage {name!r}; there are {', '.join(all_stages())}")
    return name


class Mlflow(Section):
    upload_models: bool = False
    """Copy each merged model with its tokenizer into MLflow; otherwise its path and SHA-256 are noted there."""


class Project(Section):
    experiments: tuple[Name, ...] = ("toy",)
    """What `snakemake all` builds: names of files in config/experiments."""
    data_root: Place = "data"
    """Folder of the data sets when the environment does not name one (`GSS_DATA`)."""
    comparisons: dict[Name, tuple[str, ...]] = {}
    """Pages `results/comparisons/NAME/`: two or more runs `EXPERIMENT[/MODEL]`, the baseline first."""
    mlflow: Mlflow = Mlflow()
    """What MLflow gets beside numbers, tables and figures."""

    @model_validator(mode="after")
    def _comparisons_name_runs(self) -> Self:
        for name, runs in self.comparisons.items():
            finals = {recipe.final for recipe in recipes()}  # what a run without a model means
            parted = [run_parts(run) for run in runs]
            if len({(name, "" if model in finals else model) for name, model in parted}) < max(2, len(runs)):
                raise ValueError(f"comparison {name!r} needs two or more different runs")
        return self


class Cluster(Section):
    """The block `config: cluster:` of a Snakemake profile: what one cluster is like."""

    partition: str | None = None
    """Partition of the jobs; none: the cluster's default."""
    gpu_partition: str | None = None
    """Partition of the jobs with GPUs; default: `partition`."""
    account: str | None = None
    """Account the jobs are charged to."""
    gpus_per_node: Positive | None = None
    """GPUs a node has: a stage that asks for more on a node is spread over several."""
    max_minutes: Positive | None = None
    """Longest run time the cluster grants."""
    stages: dict[Annotated[str, AfterValidator(_known_stage)], Resources] = {}
    """What a stage asks for, in place of `run.resources` of the experiments: `{latent_prior: {nodes: 2, gpus: 8}}`."""

    def fit(self, asked: Resources, stage: str) -> Resources:
        """What a stage asks this cluster for, `processes` and `gpus` as numbers: its own wishes, then those of
        `stages`, put on as many nodes as its GPUs need.

        `gpus: auto` of an experiment is what `stages` grants, else none: that a node has GPUs gives nobody a claim to
        them. `gpus: auto` in `stages` is all of a node, `gpus_per_node`.

        Raises:
            ValueError: its GPUs or processes cannot be shared out evenly.
        """
        wishes = self.stages[stage].model_dump(exclude_unset=True) if stage in self.stages else {}
        asked = asked.model_copy(update=wishes)
        minutes = min(asked.minutes, self.max_minutes or asked.minutes)
        gpus = asked.gpus if asked.gpus != "auto" else (self.gpus_per_node or 0) if "gpus" in wishes else 0
        processes, parts = asked.processes or max(1, gpus), 1
        if self.gpus_per_node is not None and gpus > self.gpus_per_node:
            parts, rest = divmod(gpus, self.gpus_per_node)
            if rest or processes % parts:
                raise ValueError(
                    f"{stage} asks for {gpus} GPUs and {processes} processes on a node, a node has "
                    f"{self.gpus_per_node} GPUs (gpus_per_node), and they cannot be shared out evenly over several"
                )
        shared = {key: -(-getattr(asked, key) // parts) for key in ("threads", "memory_mb")}
        return asked.model_copy(
            update={
                **shared,
                "nodes": asked.nodes * parts,
                "gpus": gpus // parts,
                "processes": processes // parts,
                "minutes": minutes,
            }
        )
