"""What people see in MLflow's own pages, in a real browser: the questions they have, and the clicks to the answer."""

import csv
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from pipelines import Pipeline
from stores import MlflowServer

from gss.files import read_json
from gss.tracking.mlflow_sync import sync
from gss.tracking.overview import VIEW

pytestmark = pytest.mark.slow

CLASSES = Path(__file__).parents[2] / "gss" / "resources" / "classes"
LISTED = ("ade20k", "cityscapes")  # 150 and 19 classes
FIND = """
const [css, text, whole] = arguments;
return [...document.querySelectorAll(css)].filter(item => item.getClientRects().length && (
    whole ? (item.innerText || item.ariaLabel || '').trim() === text
          : (item.innerText || item.ariaLabel || '').includes(text)))"""


class Visitor:
    """Somebody with a mouse, whose clicks are counted."""

    def __init__(self, browser: Browser, uri: str) -> None:
        self.browser, self.uri, self.clicks = browser, uri, 0
        browser.open(uri)
        browser.script("""localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
            localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')""")

    def open(self, address: str) -> None:
        self.browser.open("about:blank")  # the pages are one, told apart behind `#`
        self.browser.open(f"{self.uri}/#{address}")
        self.clicks = 0

    def see(self, text: str, css: str = "body *", *, whole: bool = True, number: int = 0) -> Any:
        """The element that shows a text, as soon as it is there."""
        return until(lambda: self.browser.script(FIND, css, text, whole)[number:], f"{text!r}, {css}")[0]

    def click(self, text: str, css: str = "a, button, [role=menuitem], [role=tab]", **options: Any) -> None:
        until(lambda: _clicked(self.see(text, css, **options)), f"a click on {text!r}")
        self.clicks += 1

    def tick(self, name: str) -> None:
        """The box of a run in the list."""
        row = until(
            lambda: self.browser.script(
                "return [...document.querySelectorAll('.ag-row')].find(row => row.innerText.includes(arguments[0]))",
                f"pipeline/{name}/",
            ),
            f"the run of {name}",
        ).get_attribute("row-id")
        box = self.browser.script("return document.querySelector(`.ag-row[row-id='${arguments[0]}'] input`)", row)
        until(lambda: _clicked(box), f"the box of {name}")
        self.clicks += 1

    def metrics(self, name: str, names: list[str]) -> list[str]:
        """Cells of a row in the table "Metrics" of the page of two runs, which draws only what is in sight.

        Its names are one movement of the wheel behind the values (MLflow 3.17): small movements bring them together.

        Args:
            names: of all rows, in their order.
        """
        script = """
            const cells = [...document.querySelectorAll('.ReactVirtualized__Grid__innerScrollContainer > *')];
            const grids = [...document.querySelectorAll('.ReactVirtualized__Grid')];
            const grid = grids.sort((a, b) => b.clientHeight * b.clientWidth - a.clientHeight * a.clientWidth)[0];
            if (!grid) return null;
            const named = cells.find(cell => cell.innerText.trim() === arguments[0]);
            const row = named ? cells.filter(cell => cell.style.top === named.style.top) : [];
            const places = row.map(cell => cell.getBoundingClientRect().top);
            if (row.length > 1 && Math.max(...places) - Math.min(...places) < 3)
                return row.map(cell => cell.innerText.trim());
            grid.scrollIntoView({block: 'center'});
            grid.scrollTop = 45 * arguments[1] - 100 + 2 * Math.random();
            return null"""
        return until(lambda: self.browser.script(script, name, names.index(name)), f"a row {name!r}", pause=0.1)


def until(happened: Callable[[], Any], what: str, seconds: float = 60, pause: float = 0.2) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(pause)
    return result


def _clicked(item: Any) -> bool:
    from selenium.common.exceptions import ElementClickInterceptedException, ElementNotInteractableException

    try:
        item.click()
    except (ElementClickInterceptedException, ElementNotInteractableException):
        return False
    return True


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pipeline]]:
    """Two pipelines of each data set, delivered; the folder is the working directory."""
    folder = tmp_path_factory.mktemp("project")
    before, uri = Path.cwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(folder)
    made = {}
    for seed, dataset in enumerate(LISTED):
        with (CLASSES / f"{dataset}.csv").open(encoding="utf-8") as table:
            names = [row["name"].partition(";")[0] for row in csv.DictReader(table)]
        for letter in "ab":
            made[f"{dataset}_{letter}"] = Pipeline(
                Path("results") / f"{dataset}_{letter}",
                names,
                dataset=dataset,
                seed=2 * seed + (letter == "b"),
                overrides=[f"seed={int(letter == 'b')}"],
            ).run()
    if camvid := os.environ.get("GSS_CAMVID_RESULTS"):
        shutil.copytree(
            camvid,
            "results/camvid",
            ignore=shutil.ignore_patterns(
                "*.pth", "*.pt", "pictures", "predictions", "maskiges", "mlflow.*", "round_*", "checkpoints"
            ),
        )
    sync()
    yield made
    os.chdir(before)
    if uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = uri


@pytest.fixture(scope="module")
def visitor(project: dict[str, Pipeline], browser: Browser) -> Iterator[Visitor]:
    server = MlflowServer(f"sqlite:///{Path.cwd() / 'mlflow.db'}", Path.cwd())
    try:
        server.start()
        yield Visitor(browser, server.uri)
    finally:
        server.kill()


def experiment(dataset: str) -> str:
    from mlflow import MlflowClient

    found = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}").get_experiment_by_name(f"gss/{dataset}")
    return f"/experiments/{found.experiment_id}/runs"


def stored(name: str) -> Any:
    """The run of a pipeline."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    wanted = f"tags.stage = 'pipeline' and tags.experiment = '{name}'"
    (run,) = client.search_runs([found.experiment_id for found in client.search_experiments()], wanted)
    return run


def scores(pipeline: Pipeline, model: str) -> dict[str, float]:
    with (pipeline.folder / "evaluation" / model / "test" / "per_class.csv").open(encoding="utf-8") as table:
        return {row["class"]: float(row["iou"]) for row in csv.DictReader(table)}


@pytest.mark.parametrize("way", ["address", "menu"])
def test_the_list_of_runs_has_the_scores_as_columns(
    way: str, visitor: Visitor, project: dict[str, Pipeline], screenshots: Path
) -> None:
    """At once by its address; else two clicks: Views, Scores."""
    if way == "address":
        visitor.open(f"{experiment('cityscapes')}?viewStateShareKey={VIEW}&workflowType=machine_learning")
    else:
        visitor.open(f"{experiment('cityscapes')}?workflowType=machine_learning")
        visitor.click("Views")
        visitor.click("Scores", "[role=menuitem], [role=menuitemradio], [role=option], li, button", whole=False)
        assert visitor.clicks == 2
    for name in ("test/mIoU", "gss_ff/test/mIoU", "reconstruction/test/mIoU"):
        visitor.see(name, ".ag-header-cell *")
    for letter in "ab":
        value = read_json(project[f"cityscapes_{letter}"].folder / "evaluation/gss_ff/test/metrics.json")["mIoU"]
        visitor.see(str(value)[:7], ".ag-cell", whole=False)
    visitor.browser.screenshot(screenshots / f"mlflow_runs_{way}.png")


@pytest.mark.parametrize("dataset", LISTED)
def test_ff_against_ft_per_class_takes_two_clicks(
    dataset: str, visitor: Visitor, project: dict[str, Pipeline], screenshots: Path
) -> None:
    """Run, "Show more"."""
    visitor.open(f"{experiment(dataset)}?workflowType=machine_learning")
    visitor.click(f"pipeline/{dataset}_a/", "a", whole=False)
    visitor.click("Show more")
    assert visitor.clicks == 2
    first, final = (scores(project[f"{dataset}_a"], model) for model in ("gss_ff", "gss_ft"))
    assert len(final) == {"ade20k": 150, "cityscapes": 19}[dataset]
    visitor.see("FT − FF")
    shown = visitor.browser.script(
        "return [...document.querySelectorAll('td:first-child')].map("
        "cell => [...cell.parentElement.children].map(cell => cell.innerText.trim()))"
    )
    found = {row[0]: row[2:] for row in shown if len(row) == 5}
    for name, value in final.items():
        gain = f"{100 * (value - first[name]):+.2f}"
        assert found[name] == [f"{100 * first[name]:.2f}", f"{100 * value:.2f}", gain], name
    visitor.browser.script("arguments[0].scrollIntoView({block: 'center'})", visitor.see("FT − FF"))
    visitor.browser.screenshot(screenshots / f"mlflow_description_{dataset}.png")


@pytest.mark.parametrize("dataset", LISTED)
def test_two_experiments_per_class_take_three_clicks(
    dataset: str, visitor: Visitor, project: dict[str, Pipeline], screenshots: Path
) -> None:
    """Tick, tick, Compare."""
    visitor.open(f"{experiment(dataset)}?viewStateShareKey={VIEW}&workflowType=machine_learning")
    for letter in "ab":
        visitor.tick(f"{dataset}_{letter}")
    visitor.click("Compare")
    assert visitor.clicks == 3
    visitor.see("Run details")
    tables = {letter: scores(project[f"{dataset}_{letter}"], "gss_ft") for letter in "ab"}
    names = sorted(stored(f"{dataset}_a").data.metrics)
    for name in (next(iter(tables["a"])), sorted(tables["a"])[-1]):
        found = visitor.metrics(f"test/iou/{name}", names)
        assert {float(cell) for cell in found[1:3]} == {round(table[name], 3) for table in tables.values()}
    visitor.browser.screenshot(screenshots / f"mlflow_compare_{dataset}.png")


def test_the_report_takes_three_clicks(visitor: Visitor, project: dict[str, Pipeline], screenshots: Path) -> None:
    """Run, Artifacts, report.html."""
    name = "camvid" if Path("results/camvid").is_dir() else "cityscapes_a"
    visitor.open(f"{experiment(name.partition('_')[0])}?workflowType=machine_learning")
    visitor.click(f"pipeline/{name}/", "a", whole=False)
    visitor.click("Artifacts")
    visitor.click("report.html", "body *")
    assert visitor.clicks == 3
    page = visitor.see("", "iframe", whole=False)
    visitor.browser.driver.switch_to.frame(page)
    until(lambda: name in visitor.browser.script("return document.body.innerText"), "the report")
    visitor.browser.driver.switch_to.default_content()
    visitor.browser.screenshot(screenshots / "mlflow_report.png")


def test_the_model_registry_has_model_scores_and_hash(
    visitor: Visitor, project: dict[str, Pipeline], screenshots: Path
) -> None:
    visitor.open("/models?workflowType=machine_learning")
    visitor.click("Try it now")  # a notice of MLflow's, at the first visit only
    visitor.clicks = 0
    visitor.click("gss-cityscapes_a", "a")
    visitor.click("Version 1", "a")
    assert visitor.clicks == 2
    visitor.see("GSS-FT of", whole=False)
    tables = scores(project["cityscapes_a"], "gss_ft")
    visitor.see(f"{sum(tables.values()) / len(tables):.6f}", "td, [role=cell]", whole=False)
    visitor.browser.screenshot(screenshots / "mlflow_model.png")
