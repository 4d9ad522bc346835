"""What the rules ask of the package, without Snakemake."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gss import workflow
from gss.errors import ConfigError
from gss.recipes.gss import workflow as gss_of

TOY = SimpleNamespace(experiment="toy")
Write = Callable[..., SimpleNamespace]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the toy experiment with changed sections under another name, in an empty project."""
    base = yaml.safe_load(Path("config/experiments/toy.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config" / "experiments"
    folder.mkdir(parents=True)

    def written(name: str, **sections: dict) -> SimpleNamespace:
        content = {**base, **{key: {**base.get(key, {}), **value} for key, value in sections.items()}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return SimpleNamespace(experiment=name)

    workflow.find_experiment.cache_clear()
    yield written
    workflow.find_experiment.cache_clear()


def test_segments_of_the_latent_prior_form_a_chain(write: Write) -> None:
    mine = write("mine", latent_prior={"milestones": [10, 20, 30]}, posterior={"start_step": 20})
    first, second = (SimpleNamespace(experiment="mine", step=str(step)) for step in (10, 20))
    assert gss_of.previous_segment(first) == []
    assert gss_of.previous_segment(second) == ["results/mine/latent_prior/step_10.pth"]
    assert gss_of.previous_segment(mine) == ["results/mine/latent_prior/step_20.pth"]
    assert [gss_of.milestone(which) for which in (first, second, mine)] == [10, 20, 30]
    assert gss_of.posterior_start(mine) == "results/mine/latent_prior/step_20.pth"


@pytest.mark.parametrize("start", [None, 30])
def test_posterior_starts_behind_the_last_milestone_by_default(write: Write, start: int | None) -> None:
    mine = write("mine", latent_prior={"milestones": [10, 30]}, posterior={"start_step": start})
    assert gss_of.posterior_start(mine) == "results/mine/gss_ff.pth"


def test_a_borrowed_posterior_comes_with_its_palette_and_tokenizer(write: Write) -> None:
    mine = write("mine", posterior={"from": "other"})
    assert gss_of.posterior_file(mine) == "results/other/posterior.pth"
    assert gss_of.reconstruction_inputs(mine) == {
        "palette": "results/other/palette.csv",
        "tokenizer": "results/other/tokenizer.safetensors",
    }


def test_splits_the_data_lack_are_no_targets(write: Write) -> None:
    splits = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
    write("mine", data={"splits": splits})
    assert workflow.experiment_targets("mine") == [
        "results/mine/gss_ft.pth",
        "results/mine/evaluation/gss_ff/val/metrics.json",
        "results/mine/evaluation/gss_ft/val/metrics.json",
        "results/mine/report.html",
    ]


def test_an_evaluation_of_a_split_the_data_lack_is_refused_before_anything_runs(write: Write) -> None:
    splits = {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")}
    write("mine", data={"splits": splits})
    wanted = {split: SimpleNamespace(experiment="mine", model="gss_ft", split=split) for split in ("val", "test")}
    assert workflow.evaluation_inputs(wanted["val"])[0] == "results/mine/gss_ft.pth"
    with pytest.raises(ConfigError, match="has no split 'test'; it has train, val"):
        workflow.evaluation_inputs(wanted["test"])


def asked(which: SimpleNamespace, stage: str, **cluster: Any) -> dict[str, Any]:
    """What a stage asks for on a cluster described as Snakemake hands it on: numbers are strings."""
    requests = workflow.Requests({"cluster": cluster} if cluster else {})
    found = {name: value(which) for name, value in requests.resources(stage).items()}
    return {"threads": requests.threads(stage)(which), **found}


def test_resources_come_from_the_configuration(write: Write) -> None:
    mine = write("mine", run={"resources": {"merge": {"gpus": 4, "memory_mb": 9000, "minutes": 33, "threads": 8}}})
    assert asked(mine, "merge") == {
        "nodes": 1,
        "tasks": 1,
        "cpus_per_task": 8,
        "processes": "auto",
        "devices": 4,
        "accel": 1,
        "gres": "gpu:4",
        "tasks_per_gpu": 0,
        "divided": 0,
        "runtime": 33,
        "mem_mb": 9000 + workflow.NESTED_SNAKEMAKES_MB,
        "threads": 8,
    }
    assert asked(mine, "check")["gres"] == ""
    assert asked(mine, "check")["processes"] == 1


@pytest.mark.parametrize("machine", ["with GPUs", "without"])
def test_the_machine_that_runs_a_stage_finds_its_gpus(
    write: Write, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    """A rule only says that they are wanted, and that one job at a time shall have them."""
    monkeypatch.setattr(workflow.gpus, "present", lambda: machine == "with GPUs")
    mine, used = write("mine", run={"resources": {}}), int(machine == "with GPUs")
    for stage in ("tokenizer", "reconstruct", "latent_prior", "posterior", "evaluate"):
        found = asked(mine, stage)
        assert (found["devices"], found["processes"], found["accel"], found["gres"]) == ("auto", "auto", used, "")
        assert workflow.Requests({}).environment(stage)(mine) == f"../envs/{'gpu' if used else 'cpu'}.yaml"
    for stage in ("prepare", "check", "palette", "import", "merge"):
        assert (asked(mine, stage)["devices"], asked(mine, stage)["accel"]) == (0, 0)
    assert asked(mine, "latent_prior")["divided"] == 16 and asked(mine, "evaluate")["divided"] == 0
    assert asked(write("two", latent_prior={"training": {"accumulation": 2}}), "latent_prior")["divided"] == 8


def test_on_a_cluster_the_profile_grants_gpus(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine has that plans says nothing, and neither does what a node has."""
    monkeypatch.setattr(workflow.gpus, "present", lambda: True)
    mine = write("mine", run={"resources": {}})
    none = asked(mine, "latent_prior", gpus_per_node="8")
    assert (none["devices"], none["processes"], none["gres"], none["accel"]) == (0, 1, "", 0)
    requests = workflow.Requests({"cluster": {"gpus_per_node": "8"}})
    assert requests.environment("latent_prior")(mine) == "../envs/cpu.yaml"
    for granted, count in (("2", 2), ("auto", 8)):
        some = asked(mine, "latent_prior", gpus_per_node="8", stages={"latent_prior": {"gpus": granted}})
        assert (some["devices"], some["processes"], some["gres"], some["accel"]) == (count, count, f"gpu:{count}", 0)


def test_a_cluster_has_partitions_an_account_and_limits(write: Write) -> None:
    mine = write("mine", run={"resources": {"latent_prior": {"gpus": 2, "minutes": 9000}}})
    cluster = {"partition": "cpu", "gpu_partition": "gpu", "account": "us", "max_minutes": "1440"}
    assert {"slurm_partition": "gpu", "slurm_account": "us", "runtime": 1440}.items() <= asked(
        mine, "latent_prior", **cluster
    ).items()
    assert {"slurm_partition": "cpu", "runtime": 120}.items() <= asked(mine, "check", **cluster).items()
    assert asked(mine, "latent_prior", partition="all")["slurm_partition"] == "all"
    assert "slurm_account" not in asked(mine, "check", partition="all")


def test_gpus_are_spread_over_smaller_nodes(write: Write) -> None:
    wanted = {"gpus": 8, "threads": 40, "memory_mb": 100001, "nodes": 2}
    mine = write("mine", run={"resources": {"latent_prior": wanted}})
    found = asked(mine, "latent_prior", gpus_per_node="4")
    assert {
        "nodes": 4,
        "tasks": 4,
        "processes": 4,
        "gres": "gpu:4",
        "threads": 20,
        "mem_mb": 50001 + workflow.NESTED_SNAKEMAKES_MB,
    }.items() <= found.items()
    assert asked(mine, "latent_prior", gpus_per_node="8")["nodes"] == 2


def test_a_cluster_replaces_what_a_stage_asks_for(write: Write) -> None:
    mine = write("mine", run={"resources": {"latent_prior": {"gpus": 8, "threads": 40}}})
    found = asked(mine, "latent_prior", stages={"latent_prior": {"nodes": "2", "gpus": "4"}})
    assert {"nodes": 2, "processes": 4, "gres": "gpu:4", "threads": 40}.items() <= found.items()


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"gpus_per_node": "4"}, "latent_prior asks for 5 GPUs and 5 processes on a node, a node has 4 GPUs"),
        ({"gpus_per_nodes": "4"}, "unknown key 'gpus_per_nodes', did you mean 'gpus_per_node'?"),
        ({"stages": {"latent_prio": {}}}, "latent_prio"),
        ({"stages": {"check": {"gpu": "1"}}}, "unknown key 'stages.check.gpu', did you mean 'gpus'?"),
        ({"max_minutes": "2h"}, "max_minutes"),
    ],
)
def test_what_a_cluster_cannot_do_is_said(write: Write, cluster: dict[str, Any], said: str) -> None:
    mine = write("mine", run={"resources": {"latent_prior": {"gpus": 5}}})
    with pytest.raises(ConfigError) as caught:
        asked(mine, "latent_prior", **cluster)
    assert said in str(caught.value)


def test_only_generated_data_are_inputs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSS_DATA", raising=False)
    assert workflow.data_inputs(write("mine")) == ["data/toy/classes.csv"]
    assert workflow.data_inputs(write("other", data={"generate": None})) == []


def test_records_of_labels_are_inputs_of_those_who_read_them(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSS_DATA", raising=False)
    place = {"root": "sets/Camvid", "splits": {"val": {"images": "i", "labels": "l"}}}
    made = {**place, "classes": "mseg/camvid-11", "prepared": "sets/prepared/camvid-11.json"}
    mine = write(
        "mine", data={"generate": None, "prepared": "sets/prepared/bdd.json"}, evaluation={"sets": {"a": made}}
    )
    assert workflow.data_inputs(mine) == ["data/sets/prepared/bdd.json"]
    mine.split = "a"
    assert workflow.set_inputs(mine) == ["data/sets/prepared/camvid-11.json"]
    write("other", data={"generate": None, "prepared": "elsewhere/mine.json"})  # a rule of the user's may make it
    assert workflow.mseg_folders() == "data/sets" and "ade20k\\-150\\-relabeled" in workflow.mseg_sets()


def test_braces_in_a_folder_hinder_those_alone_who_ask_for_it(write: Write) -> None:
    write("mine")
    braced = write("braced", data={"root": "{toy}"})
    assert workflow.generated_folders() == r"data/\x7btoy\x7d|data/toy"
    with pytest.raises(ConfigError, match="takes braces in a path for a wildcard"):
        workflow.data_inputs(braced)
