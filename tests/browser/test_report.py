"""The report in a real browser: names of data stay text, pictures change, and 150 classes can be read."""

import html
import os
import shutil
import time
from pathlib import Path

import pytest
from browser import Browser
from synthetic_results import EVIL, NOTICE, SyntheticResults

from gss.data.classes import read_classes
from gss.report.page import SECTIONS, write_report
from gss.results.reader import Evaluation

pytestmark = pytest.mark.slow

CLASSES = Path(__file__).resolve().parents[2] / "gss" / "resources" / "classes" / "ade20k.csv"
TEXT_OF = "return document.querySelector(arguments[0])?.textContent"
COLOURS = """const canvas = document.getElementById('canvas'), found = {};
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < data.length; i += 4) {
        const colour = data.slice(i, i + 3).join();
        found[colour] = (found[colour] ?? 0) + 1;
    }
    return found"""


def wait_for(browser: Browser, script: str, *arguments: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not browser.script(script, *arguments):
        assert time.monotonic() < end, script
        time.sleep(0.05)


def shown(browser: Browser, page: Path | str) -> None:
    browser.open(page)
    wait_for(browser, "return document.querySelectorAll('#legend tbody tr').length > 0")


def take(browser: Browser, folder: Path, prefix: str) -> None:
    """A screenshot of each section, and of each again on a narrow window."""
    for width in (1280, 700):
        browser.driver.set_window_size(width, 900)
        for section in (name for name in SECTIONS if name != "sets"):  # there are no test sets
            browser.script("document.getElementById(arguments[0]).scrollIntoView()", section)
            time.sleep(0.2)
            browser.screenshot(folder / f"{prefix}_{section}_{width}.png")
        assert browser.script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    browser.driver.set_window_size(1280, 900)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticResults:
    return SyntheticResults(tmp_path_factory.mktemp("project"), (*EVIL, "road"))


def test_names_of_data_are_text(browser: Browser, made: SyntheticResults) -> None:
    shown(browser, write_report(made.folder))
    assert browser.driver.title == "made: report"
    cells = "return [...document.querySelectorAll(arguments[0] + ' tbody td:first-child')].map(c => c.textContent)"
    assert browser.script(cells, "#classes-test") == list(made.names)
    legend = browser.script(cells, "#legend")
    assert set(legend) <= set(made.names) and legend
    move(browser, ".matrix canvas", 0.6, 0.6)
    assert any(name in browser.script(TEXT_OF, ".matrix .reading") for name in made.names)
    assert browser.driver.title == "made: report" and browser.problems() == []


def move(browser: Browser, selector: str, x: float, y: float) -> None:
    """Move the pointer to a place inside an element, shares of its width and height."""
    browser.script(
        """const element = document.querySelector(arguments[0]); element.scrollIntoView();
        const box = element.getBoundingClientRect();
        element.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + arguments[1] * box.width,
            clientY: box.top + arguments[2] * box.height, bubbles: true}))""",
        selector,
        x,
        y,
    )


def layer(browser: Browser, name: str) -> dict[str, int]:
    """Choose a layer; colours of the picture with their numbers of pixels."""
    browser.script("document.querySelector(`#choose-layer input[value='${arguments[0]}']`).click()", name)
    return browser.script(COLOURS)


@pytest.mark.parametrize("bits", [8, 16])
def test_layers_show_what_they_say(browser: Browser, made: SyntheticResults, tmp_path: Path, bits: int) -> None:
    if bits == 16:
        made = SyntheticResults(tmp_path, [f"class {index}" for index in range(300)])
    shown(browser, write_report(made.folder))
    browser.script("const o = document.getElementById('opacity'); o.value = 100; o.dispatchEvent(new Event('input'))")
    palette = {",".join(map(str, colour)) for colour in made.palette.colours.tolist()}
    assert set(layer(browser, "maskige")) <= palette  # every pixel, ignored ones too
    errors = layer(browser, "error")
    assert errors["150,150,150"] == made.size[1] * (made.size[0] // 12)  # ignored
    index = int(browser.script(TEXT_OF, "#picture-title").split("test ")[1].split(")")[0])
    for model in ("gss_ft", "gss_ff"):
        browser.script("document.querySelector(`#choose-model input[value='${arguments[0]}']`).click()", model)
        counts = Evaluation(model, "test", {}, made.folder / "evaluation" / model / "test").counts
        wrong = (counts["labelled"] - counts["intersection"])[index].sum()
        assert browser.script(COLOURS).get("214,39,40", 0) == wrong > 0
    assert len(layer(browser, "image")) > 100
    assert set(layer(browser, "prediction")) <= palette
    assert not set(layer(browser, "predicted maskige")) <= palette  # decoded, not painted
    greys = [[int(channel) for channel in colour.split(",")] for colour in layer(browser, "uncertainty")]
    assert len(greys) > 5 and max(max(grey) - min(grey) for grey in greys) <= 4  # as good as grey: WebP
    move(browser, "#canvas", 0.5, 0.5)
    under = browser.script(TEXT_OF, "#under")
    assert under.startswith("label: ") and "GSS-FF: " in under and "GSS-FT: " in under
    before = browser.script(TEXT_OF, "#picture-title")
    browser.script("dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
    wait_for(browser, "return document.getElementById('picture-title').textContent !== arguments[0]", before)
    browser.script("dispatchEvent(new KeyboardEvent('keydown', {key: '2'}))")
    assert browser.script("return document.querySelector('#choose-layer input:checked').value") == "label"


def test_tables_filter_sort_and_switch(browser: Browser, made: SyntheticResults) -> None:
    shown(browser, write_report(made.folder))
    rows = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr:not([hidden])`)]
        .map(row => row.cells[0].textContent)"""
    type_in = """const box = document.querySelector(`[data-filter='${arguments[0]}']`); box.value = arguments[1];
        box.dispatchEvent(new Event('input'))"""
    browser.script(type_in, "classes-test", "road")
    assert browser.script(rows, "classes-test") == ["road"]
    changed = browser.script(rows, "settings")
    assert "posterior.steps" in changed and "augment.flip" not in changed
    browser.script("document.querySelector('[data-only=settings]').click()")
    browser.script(type_in, "settings", "flip")
    assert browser.script(rows, "settings") == ["augment.flip", "evaluation.flip"]
    assert not browser.script("return document.getElementById('classes-val').offsetParent")
    browser.script("[...document.querySelectorAll('[data-tab]')].find(b => b.textContent === 'val').click()")
    assert browser.script("return document.getElementById('classes-val').offsetParent !== null")


def test_it_works_inside_a_sandboxed_frame(browser: Browser, made: SyntheticResults, tmp_path: Path) -> None:
    """As MLflow and Snakemake's report show it: scripts are allowed, an origin of its own is not."""
    text = write_report(made.folder).read_text(encoding="utf-8")
    outer = tmp_path / "outer.html"
    frame = f'<iframe sandbox="allow-scripts" width="1200" height="800" srcdoc="{html.escape(text)}"></iframe>'
    outer.write_text(frame, encoding="utf-8")
    browser.open(outer)
    browser.driver.switch_to.frame(0)
    wait_for(browser, "return document.querySelectorAll('#legend tbody tr').length > 0")
    browser.script("document.querySelector(`nav a[href='#provenance']`).click()")
    assert browser.script("return document.getElementById('provenance').getBoundingClientRect().top < 200")
    browser.driver.switch_to.default_content()
    assert browser.problems() == []


def test_150_classes_are_small_and_readable(browser: Browser, tmp_path: Path, screenshots: Path) -> None:
    made = SyntheticResults(tmp_path, read_classes(CLASSES)[0], size=(512, 683), images=24, steps=160_000)
    page = write_report(made.folder, notice=NOTICE)
    assert page.stat().st_size < 5_000_000
    started = time.monotonic()
    shown(browser, page)
    assert time.monotonic() - started < 10
    assert NOTICE in browser.script("return document.body.textContent")
    take(browser, screenshots, "report_150")
    assert browser.problems() == []


def test_camvid(
    browser: Browser, tmp_path: Path, screenshots: Path, gss_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(os.environ.get("GSS_CAMVID_RESULTS", "results/camvid"))
    if not (source / "evaluation").is_dir():
        pytest.skip(f"no results of CamVid at {source}: set GSS_CAMVID_RESULTS to look at their report")
    monkeypatch.setenv("GSS_DATA", str(gss_data))
    folder = tmp_path / "results" / "camvid"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("checkpoints", "pictures", "step_*.pth"))
    page = write_report(folder)
    assert page.stat().st_size < 5_000_000
    shown(browser, page)
    take(browser, screenshots, "report_camvid")
    assert browser.problems() == []
