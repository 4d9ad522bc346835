"""The pipeline itself on a small toy set: real Snakemake, once for all tests here.

The latent prior is trained by two processes; tests/slurm runs all stages with two.
"""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from project import SMALL, Project

from gss.data.images import read_native_label
from gss.data.manifest import read_manifest
from gss.data.metrics import confusion
from gss.evaluate.pictures import picture_name
from gss.modelfile import load_model
from gss.recipes.gss.tokenizer.store import load_tokenizer
from gss.results.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ALONE = ("tokenizer", "reconstruct", "posterior", "evaluate")
TRAINED = ("latent_prior_segment", "latent_prior", "posterior", "merge")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose `all` was built; tests leave it as it is."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.configure("toy", **SMALL)
    project.configure("toy", **{f"run__resources__{stage}": {"processes": 1} for stage in ALONE})
    done = project.snakemake("all")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


@pytest.fixture
def edited(finished: Project) -> Iterator[Project]:
    """The finished project, whose experiment and rules a test may change."""
    files = {
        path: path.read_bytes()
        for path in finished.folder.glob("*/**/*")
        if path.suffix in (".yaml", ".smk") and "results" not in path.parts
    }
    yield finished
    for path, content in files.items():
        path.write_bytes(content)


def results(project: Project) -> Path:
    return project.folder / "results" / "toy"


def test_everything_promised_is_there(finished: Project) -> None:
    folder = results(finished)
    promised = [
        "config.yaml",
        "data/manifest.json",
        "data/statistics.json",
        "palette.csv",
        "tokenizer.safetensors",
        "reconstruction/metrics.json",
        "reconstruction/rounds.csv",
        "latent_prior/step_4.pth",
        "gss_ff.pth",
        "posterior.pth",
        "gss_ft.pth",
        "report.html",
    ]
    promised += [
        f"evaluation/{model}/{split}/{file}"
        for model in ("gss_ff", "gss_ft")
        for split in ("val", "test")
        for file in ("metrics.json", "per_class.csv", "confusion.npz")
    ]
    assert [path for path in promised if not (folder / path).is_file()] == []
    metrics = json.loads((folder / "evaluation/gss_ft/test/metrics.json").read_text())
    assert 0 <= metrics["mIoU"] <= 1
    assert list((folder / "evaluation/gss_ft/test/pictures").glob("*.png"))


def test_predictions_are_kept_and_are_those_of_the_figures(finished: Project) -> None:
    """None is missing, none is another image's."""
    data = finished.folder / "data"
    pairs = read_manifest(results(finished) / "data/manifest.json").at(data / "toy", data).pairs("test")
    for model in ("gss_ff", "gss_ft"):
        folder = results(finished) / "evaluation" / model / "test"
        kept = sorted((folder / "predictions").iterdir())
        assert [path.name for path in kept] == [picture_name(i, pair.image) for i, pair in enumerate(pairs)]
        counts = [
            confusion(*(torch.from_numpy(read_native_label(path)) for path in (prediction, pair.label)), 6)
            for prediction, pair in zip(kept, pairs, strict=True)
        ]
        stored = np.load(folder / "confusion.npz")
        assert (stored["confusion"] == sum(counts).numpy()).all()
        assert (stored["intersection"] == np.stack([count.diag() for count in counts])).all()
        drawn = sorted(path.name for path in (folder / "pictures").glob("*.png"))
        assert sorted(path.name for path in (folder / "maskiges").iterdir()) == drawn


def test_every_stage_tells_its_end_its_time_and_its_log(finished: Project) -> None:
    folder = results(finished)
    journals = sorted(folder.glob("work/*/journal.jsonl"))
    ends = {path.parent.name: read_journal(path)[-1].get("end") for path in journals}
    evaluations = [f"evaluate_{model}_{split}" for model in ("gss_ff", "gss_ft") for split in ("val", "test")]
    stages = {"check", "palette", "tokenizer", "reconstruct", "latent_prior", "posterior", "merge", *evaluations}
    assert ends == dict.fromkeys(stages, "finished")
    jobs = stages | {"latent_prior_4"}
    assert {path.stem for path in (folder / "logs").glob("*.log")} == jobs | {"report"}
    assert {path.stem for path in (folder / "benchmarks").iterdir()} == jobs


def test_segments_share_one_training(finished: Project) -> None:
    events = read_journal(results(finished) / "work/latent_prior/journal.jsonl")
    steps = [event["step"] for event in events if "train/loss" in event.get("m", {})]
    assert steps == [2, 4, 6, 8]
    assert "step 4" in (results(finished) / "logs/latent_prior.log").read_text()


def test_models_and_logs_say_what_they_were_made_on(finished: Project) -> None:
    machine, alone = (
        {"device": "cpu", "processes": processes, "accumulation": 1, "micro_batch": 4 // processes}
        for processes in (2, 1)
    )
    for name, of in (("gss_ff.pth", machine), ("posterior.pth", alone)):
        assert load_model(results(finished) / name).meta["provenance"]["machine"] == of
    (checkpoint,) = (results(finished) / "work/latent_prior/checkpoints").glob("step_00000008-*.pt")
    assert torch.load(checkpoint, weights_only=True)["settings"]["machine"] == machine
    for stage in ("tokenizer", "reconstruct", "latent_prior", "posterior", "evaluate_gss_ft_test"):
        lines = (results(finished) / f"logs/{stage}.log").read_text().splitlines()
        processes = "2 x 1 threads" if stage == "latent_prior" else "1 x "
        assert lines[0].startswith("--- ") and lines[1].startswith(f"computing on the CPU, {processes}"), stage


def test_curves_and_figures_reach_mlflow(finished: Project) -> None:
    with contextlib.closing(sqlite3.connect(finished.folder / "mlflow.db")) as store:

        def latest(run: str, metric: str) -> list[tuple[float]]:
            return store.execute(
                "select m.value from latest_metrics m join runs r on r.run_uuid = m.run_uuid "
                "where r.name like ? and m.key = ?",
                (run, metric),
            ).fetchall()

        names = {name for (name,) in store.execute("select name from runs")}
        assert {
            "check",
            "palette",
            "tokenizer",
            "reconstruct",
            "latent_prior",
            "posterior",
            "merge",
            "evaluate_gss_ff",
            "evaluate_gss_ft",
        } == {name for name in names if not name.startswith("pipeline/")}
        assert len(names) == 10
        assert len(latest("latent_prior", "train/loss")) == 1
        for model, name in (("gss_ft", "test/mIoU"), ("gss_ff", "gss_ff/test/mIoU")):
            metrics = json.loads((results(finished) / f"evaluation/{model}/test/metrics.json").read_text())
            assert latest("pipeline/toy/%", name) == [(pytest.approx(metrics["mIoU"]),)]
            assert latest(f"evaluate_{model}", "test/mIoU") == [(pytest.approx(metrics["mIoU"]),)]


def test_second_run_does_nothing(finished: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in results(finished).rglob("*")}
    done = finished.snakemake("all")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in results(finished).rglob("*")} == before


def test_snakemakes_report_holds_page_pictures_and_tables(finished: Project) -> None:
    done = finished.snakemake("all", "--report", "held.html")
    assert done.returncode == 0, done.stdout
    text = (finished.folder / "held.html").read_text()
    for category, file in (
        ("Report", "results/toy/report.html"),
        ("Tables", "evaluation/gss_ft/test/per_class.csv"),
        ("Tables", "reconstruction/rounds.csv"),
        ("Pictures", "report_pictures/gss_ff/val/"),
    ):
        assert f'"{category}"' in text and file in text, file


def test_palette_settings_rerun_the_palettes_children_only(edited: Project) -> None:
    edited.configure("toy", palette__seed=1)
    once = ("palette", "tokenizer", "reconstruct", *TRAINED, "report", "all")
    assert edited.planned("all") == {**dict.fromkeys(once, 1), "evaluate": 4}


def test_posterior_settings_rerun_posterior_merge_and_gss_ft(edited: Project) -> None:
    edited.configure("toy", posterior__steps=5)
    assert edited.planned("all") == {"posterior": 1, "merge": 1, "evaluate": 2, "report": 1, "all": 1}


def test_protocol_reruns_the_evaluation_only(edited: Project) -> None:
    edited.configure("toy", evaluation__mode="slide")
    assert edited.planned("all") == {"evaluate": 4, "report": 1, "all": 1}


def test_tracking_comments_and_machine_settings_rerun_nothing(edited: Project) -> None:
    path = edited.experiment("toy")
    path.write_text("# a comment\n" + path.read_text())
    edited.configure("toy", run__log_every=7, run__resources__latent_prior={"processes": 1, "minutes": 9})
    for rules in (edited.folder / "rules").glob("*.smk"):
        rules.write_text(rules.read_text().replace("python -m gss", "python  -m gss") + "\n# a comment\n")
    assert edited.planned("all", MLFLOW_TRACKING_URI="http://127.0.0.1:9") == {}


def test_default_written_out_reruns_nothing(edited: Project) -> None:
    edited.configure("toy", palette__strategy="maximal", evaluation__mode="whole", posterior__variant="window")
    assert edited.planned("all") == {}


def test_overrides_by_hand_stand_apart(edited: Project) -> None:
    """What the workflow made stays as it is, and what it lacks is taken from there by links."""
    made = [path for path in results(edited).rglob("*") if path.is_file() and "work" not in path.parts]
    kept = {path: path.read_bytes() for path in made}
    gss(edited, "evaluate", "toy", "evaluation.flip=true", "--split", "val")
    assert {path: path.read_bytes() for path in made} == kept
    assert edited.planned("all") == {}
    [apart] = edited.folder.glob("results/toy+*")
    assert (apart / "gss_ft.pth").is_symlink() and (apart / "gss_ft.pth").samefile(results(edited) / "gss_ft.pth")
    assert json.loads((apart / "evaluation/gss_ft/val/metrics.json").read_text())["protocol"]["flip"] is True
    assert yaml.safe_load((apart / "config.yaml").read_text())["evaluation"]["flip"] is True
    gss(edited, "report", "toy", "evaluation.flip=true")
    assert "with flip" in (apart / "report.html").read_text()
    gss(edited, "evaluate", "toy", "run.workers=0", "--split", "val")  # no result depends on it
    assert [*edited.folder.glob("results/toy+*")] == [apart]
    shutil.rmtree(apart)


def test_what_is_said_of_a_model_is_what_it_was_made_with(edited: Project) -> None:
    """Also after its configuration was edited and other stages ran by hand."""
    edited.configure("toy", latent_prior__training__lr=0.0077)
    for verb in ("check", "evaluate"):
        gss(edited, verb, "toy")
    gss(edited, "report", "toy")
    stored = yaml.safe_load((results(edited) / "config.yaml").read_text())
    assert stored["latent_prior"]["training"]["lr"] == 0.002
    page = (results(edited) / "report.html").read_text()
    assert "latent_prior.training.lr was 0.002, is 0.0077" in page and "lr 0.002" in page
    assert "latent_prior.training.lr 0.002 -> 0.0077" in edited.snakemake("-n", "all").stdout


def test_a_copy_without_snakemakes_memory_is_judged_by_its_records(edited: Project, tmp_path: Path) -> None:
    copied = Project(tmp_path)
    for name in ("config", "data", "results"):  # as `cp -r` does it: the times are new, and in no order
        shutil.copytree(edited.folder / name, tmp_path / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
    assert copied.planned("all") == {}
    copied.configure("toy", posterior__training__lr=0.0077)
    assert copied.planned("all") == {"posterior": 1, "merge": 1, "evaluate": 2, "report": 1, "all": 1}
    shutil.rmtree(tmp_path / "results" / "toy" / "records")  # results of an earlier version have none
    copied.configure("toy", palette__seed=1)
    assert copied.planned("all")["palette"] == 1


def test_what_was_made_by_hand_from_an_edited_file_is_made_again(edited: Project) -> None:
    before = edited.experiment("toy").read_bytes()
    edited.configure("toy", evaluation__flip=True)
    gss(edited, "evaluate", "toy", "--split", "val")
    edited.experiment("toy").write_bytes(before)
    assert edited.planned("all") == {"evaluate": 1, "report": 1, "all": 1}
    gss(edited, "evaluate", "toy", "--split", "val")
    gss(edited, "report", "toy")
    assert edited.planned("all") == {}


def test_another_encoder_borrows_posterior_palette_and_tokenizer(edited: Project) -> None:
    shutil.copy(edited.experiment("toy"), edited.experiment("borrow"))
    edited.configure("borrow", posterior__experiment="toy", posterior__start_step=None, latent_prior__milestones=[2])
    done = edited.snakemake("results/borrow/gss_ft.pth")
    assert done.returncode == 0, done.stdout[-6000:]
    ours, theirs = edited.folder / "results/borrow", results(edited)
    assert (ours / "palette.csv").read_bytes() == (theirs / "palette.csv").read_bytes()
    tokenizers = {load_tokenizer(folder / "tokenizer.safetensors").sha256 for folder in (ours, theirs)}
    assert len(tokenizers) == 1
    assert load_model(ours / "gss_ft.pth").meta["parents"]["posterior"]["experiment"] == "toy"
    assert not (ours / "posterior.pth").exists()
    edited.experiment("borrow").unlink()


def test_an_exported_model_is_imported_instead_of_trained(edited: Project) -> None:
    """Its X^-1 is trained anew, as published; the tokenizer in the checkpoint is the one made here again."""
    checkpoint = edited.folder / "published.pth"
    gss(edited, "export", "toy", "--model", "gss_ff", "--with-tokenizer", "-o", str(checkpoint))
    shutil.copy(edited.experiment("toy"), edited.experiment("imported"))
    edited.configure(
        "imported", numerics="reference", latent_prior__checkpoint=str(checkpoint), posterior__start_step=None
    )
    metrics = "evaluation/gss_ff/test/metrics.json"
    done = edited.snakemake(f"results/imported/{metrics}", "results/imported/gss_ft.pth")
    assert done.returncode == 0, done.stdout[-6000:]
    found, expected = (
        json.loads((edited.folder / "results" / name / metrics).read_text()) for name in ("imported", "toy")
    )
    assert found["protocol"]["numerics"] == "reference"
    assert {key: found[key] for key in ("mIoU", "IoU", "Acc")} == {key: expected[key] for key in ("mIoU", "IoU", "Acc")}
    ours, theirs = (load_model(edited.folder / "results" / name / "gss_ft.pth").tensors for name in ("imported", "toy"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs if key.startswith("prior."))
    assert not all(torch.equal(ours[key], theirs[key]) for key in theirs if key.startswith("posterior."))
    edited.experiment("imported").unlink()


def gss(project: Project, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "gss", *arguments], cwd=project.folder, check=True)
