"""The graph of jobs: complete for every experiment, with nothing on disk but the workflow itself."""

import re
from pathlib import Path

import pytest
from project import Project

from gss.config import list_experiments, load_experiment, runs_of

CHAIN = ("check", "palette", "tokenizer", "reconstruct", "latent_prior", "posterior", "merge")
UNQUOTED = {"wildcards.model", "wildcards.split", "params.split", "params.until", "params.kind"}  # choices, a number
EVERYTHING = {**dict.fromkeys((*CHAIN, "toy_data", "latent_prior_segment", "report", "all"), 1), "evaluate": 4}


@pytest.mark.parametrize("name", [runs_of(name)[-1] for name in list_experiments()])
def test_graph_is_complete_without_data(project: Project, name: str) -> None:
    experiment = load_experiment(name)
    expected = dict.fromkeys(CHAIN if experiment.recipe == "gss" else ("check", *experiment.trainings), 1)
    if segments := len(getattr(experiment, "milestones", "1")) - 1:
        expected["latent_prior_segment"] = segments
    if experiment.data.generate:
        expected["toy_data"] = 1
    if experiment.data.archives:
        expected["prepare"] = 1
    if made := [source.prepared for source in (experiment.data, *experiment.data.sources) if source.prepared]:
        expected["mseg_labels"] = len(made)
    assert project.planned(f"results/{name}/{experiment.kind.final}.pth") == expected


@pytest.mark.parametrize("profile", [(), ("--profile", "local"), ("--profile", "slurm")])
def test_all_builds_what_the_project_lists(project: Project, profile: tuple[str, ...]) -> None:
    assert project.planned(*profile, "all") == EVERYTHING


def test_dry_run_leaves_nothing_behind(project: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.folder.rglob("*")}
    project.planned()
    after = {
        path: path.stat().st_mtime_ns
        for path in project.folder.rglob("*")
        if ".snakemake" not in path.parts and "__pycache__" not in path.parts
    }
    assert after == before


def test_lint_is_clean(project: Project) -> None:
    done = project.snakemake("--lint")
    assert done.returncode == 0, done.stdout
    assert "your workflow is in a good condition" in done.stdout


def test_a_borrowed_posterior_is_trained_where_it_belongs(project: Project) -> None:
    project.experiment("mine").write_text(project.experiment("toy").read_text())
    project.configure("mine", posterior__from="toy")
    planned = project.planned("results/mine/gss_ft.pth")
    # toy's palette, tokenizer and X^-1 (with the segment behind which it is trained), but not its GSS-FF
    assert planned == {
        "toy_data": 1,
        "check": 2,
        "palette": 1,
        "tokenizer": 1,
        "reconstruct": 2,
        "merge": 1,
        "latent_prior_segment": 2,
        "latent_prior": 1,
        "posterior": 1,
    }


def test_checkpoints_are_imported_instead_of_trained(project: Project) -> None:
    project.configure("toy", latent_prior__checkpoint="mine.pth", posterior__start_step=None)
    planned = project.planned("results/toy/gss_ft.pth")
    assert {"import_latent_prior", "posterior"} <= set(planned)
    assert "latent_prior" not in planned
    project.configure("toy", posterior__checkpoint="mine.pth")
    planned = project.planned("results/toy/gss_ft.pth")
    assert {"import_latent_prior", "import_posterior"} <= set(planned)
    assert "posterior" not in planned


def test_a_checkpoint_of_a_per_pixel_network_is_imported_instead_of_trained(project: Project) -> None:
    project.configure("ade20k_cae_base_300", pixel__checkpoint="mine.pth")
    planned = project.planned("results/ade20k_cae_base_300/report.html")
    assert planned == {"prepare": 1, "check": 1, "import_pixel": 1, "evaluate": 1, "report": 1}
    other = project.planned("results/camvid_pixel/seed_0/pixel.pth")
    assert "pixel" in other and "import_pixel" not in other


def test_unknown_experiment_names_the_nearest(project: Project) -> None:
    done = project.snakemake("-n", "results/camvit/gss_ft.pth")
    assert done.returncode != 0
    assert "did you mean 'camvid'?" in done.stdout


def test_only_what_is_asked_for_must_load(project: Project) -> None:
    folder = project.experiment("toy").parent
    project.experiment("draft").write_text("data:\n\troot: x\n")
    project.experiment("typo").write_text(project.experiment("toy").read_text() + "palete: {}\n")
    project.experiment("folder").mkdir()
    project.experiment("lost").symlink_to("nowhere")
    (folder / ".#toy.yaml").symlink_to("nobody@nowhere.1")
    (folder / "._toy.yaml").write_bytes(b"\x00\x05\x16\x07")
    assert project.planned("all") == EVERYTHING
    assert project.snakemake("--unlock").returncode == 0
    done = project.snakemake("-n", "results/typo/gss_ft.pth")
    assert done.returncode != 0
    assert done.stdout.count("did you mean 'palette'?") == done.stdout.count("where: config/experiments/typo.yaml") == 1
    project_file = project.folder / "config/config.yaml"
    project_file.write_text(project_file.read_text().replace("[toy]", "[toy, draft]"))
    assert project.planned("results/toy/report.html") == {rule: n for rule, n in EVERYTHING.items() if rule != "all"}
    assert "config/experiments/draft.yaml" in project.snakemake("-n", "all").stdout


def test_names_with_dots_and_folders_with_blanks_and_quotes(tmp_path: Path) -> None:
    project = Project(tmp_path / "it's a  folder")
    project.experiment("v1.2").write_text(project.experiment("toy").read_text())
    project_file = project.folder / "config/config.yaml"
    project_file.write_text(project_file.read_text().replace("data_root: data", """data_root: 'my "data"; $1'"""))
    assert project.planned("results/v1.2/report.html")["merge"] == 1
    made = 'my "data"; $1/toy/classes.csv'
    done = project.snakemake("--cores", "1", "--", made)
    assert done.returncode == 0, done.stdout
    assert (project.folder / made).is_file() and (project.folder / made).with_name("toy_data.log").is_file()


@pytest.mark.slow
def test_an_edited_palette_runs_again_what_depends_on_it(project: Project) -> None:
    start, mine = project.folder / "results/toy/palette/start.csv", project.folder / "mine.csv"
    target = str(start.relative_to(project.folder))
    project.configure("toy", seed=0)  # written as it will be: the order of the splits is part of the check
    assert project.snakemake("--cores", "1", target).returncode == 0
    mine.write_text(start.read_text())
    project.configure("toy", palette__file="mine.csv")
    assert project.planned(target) == {"palette": 1}
    assert project.snakemake("--cores", "1", target).returncode == 0
    assert start.read_text() == mine.read_text()
    mine.touch()
    assert project.planned(target) == {}
    rows = mine.read_text().splitlines()
    mine.write_text("\n".join([rows[0], "0,background,1,2,3", *rows[2:], ""]))
    assert project.planned(target) == {"palette": 1}
    done = project.snakemake("--cores", "1", target)
    assert done.returncode == 0, done.stdout
    assert start.read_text() == mine.read_text()


def test_wrong_key_stops_before_any_job(project: Project) -> None:
    project.configure("toy", palette__sead=1)
    done = project.snakemake("all")
    assert done.returncode != 0
    assert "unknown key 'palette.sead', did you mean 'seed'?" in done.stdout
    assert not Path(project.folder, "results").exists()


def test_missing_data_stop_at_once_and_say_what_is_expected(project: Project) -> None:
    done = project.snakemake("results/ade20k/gss_ft.pth")
    assert done.returncode != 0
    for part in ("data/ADEChallengeData2016", "images/training", "annotations/validation", "sceneparsing"):
        assert part in done.stdout
    assert "Traceback" not in done.stdout
    assert [path.name for path in (project.folder / "results/ade20k/logs").iterdir()] == ["prepare.log"]


def test_of_a_failed_job_the_end_is_shown(project: Project) -> None:
    with (project.folder / "Snakefile").open("a") as file:
        file.write("""
rule noisy:
    output: "noisy"
    log: "noisy.log"
    shell: "(echo '--- 2026-01-02 03:04:05 on host: gss x'; seq -f 'line %g' 1000; echo error: this) > {log}; exit 2"
""")
    done = project.snakemake("noisy")
    assert done.returncode != 0
    assert "error: this" in done.stdout and "line 1000\n" in done.stdout and "line 900\n" not in done.stdout


def test_rules_are_declarations() -> None:
    for path in Path("rules").glob("*.smk"):
        for block in re.split(r"^(?=rule |use rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
            assert len(lines) <= 21, f"{path}: {lines[0]} has {len(lines)} lines"
            assert block.count("python -m gss") + block.count("launch(") <= 1
            assert "run:" not in block and "script:" not in block
            shell = block.partition("shell:")[2]
            assert set(re.findall(r"{([\w.]+)}", shell)) <= UNQUOTED, f"{path}: write {{...:q}}"
