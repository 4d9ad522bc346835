"""The page of a comparison as people see it."""

import os
import sys
from pathlib import Path

import pytest

from gss.compare.compare import compare

sys.path.insert(0, str(Path(__file__).parents[1] / "compare"))
from made import Made

pytestmark = pytest.mark.slow
EVIL = "<script>document.title = 'broken'</script>"
CELLS = "return [...document.querySelectorAll('table.sortable')[0].querySelectorAll('tbody td:nth-child(%d)')]"


def test_three_runs_with_evil_class_names(browser, screenshots, tmp_path):
    made = Made(tmp_path, ("sky", "road", EVIL, "<img src=x onerror=alert(1)> and a long name, " * 3, "pole"))
    made.run("a/gss_ff", 0.3)
    made.run("a/gss_ft", 0.25)
    made.run("b/gss_ft", 0.2, seed=3, overrides=["seed=4", "evaluation.flip=true"])
    compare(["a/gss_ff", "a", "b"], split=None, output=tmp_path / "out", results=made.results)
    browser.open(tmp_path / "out" / "index.html")
    browser.screenshot(screenshots / "compare_three.png", whole=True)
    assert browser.problems() == []
    assert browser.driver.title == "a/gss_ft, b/gss_ft against a/gss_ff"
    assert EVIL in browser.script(CELLS % 1 + ".map(cell => cell.textContent)")
    sizes = browser.script("return [...document.images].map(image => image.naturalWidth)")
    assert len(sizes) >= 2 * 3 * 5 and min(sizes) > 0
    shown = browser.script(
        CELLS % 4 + ".map(cell => [cell.querySelector('b').className, cell.nextElementSibling.textContent])"
    )
    assert all((kind == "") == ("+0.00" in interval or "−" in interval) for kind, interval in shown)
    assert "" in {kind for kind, _ in shown}
    assert "evaluation.flip" in browser.script("return document.querySelector('#settings').parentElement.textContent")

    biggest = browser.script(CELLS % 4 + ".map(cell => Math.abs(cell.dataset.value))")
    assert biggest == sorted(biggest, reverse=True)
    browser.script("document.querySelectorAll('table.sortable')[0].querySelectorAll('th')[3].click()")
    signed = browser.script(CELLS % 4 + ".map(cell => Number(cell.dataset.value))")
    assert signed == sorted(signed, reverse=True)


def test_a_narrow_window_scrolls_tables_only(browser, screenshots, tmp_path):
    made = Made(tmp_path)
    made.run("a/gss_ff", 0.3)
    made.run("a/gss_ft", 0.2, predictions=False)
    compare(["a/gss_ff", "a"], split=None, output=tmp_path / "out", results=made.results)
    browser.driver.set_window_size(700, 900)
    browser.open(tmp_path / "out" / "index.html")
    browser.screenshot(screenshots / "compare_narrow.png", whole=True)
    assert browser.script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    text = browser.script("return document.body.textContent")
    assert "gss evaluate a --model gss_ft --split test" in text  # no pictures, and how to get them
    browser.driver.set_window_size(1280, 900)


def test_two_runs_on_camvid(browser, screenshots, tmp_path, gss_data, monkeypatch):
    folder = os.environ.get("GSS_CAMVID_RESULTS")
    if folder is None:
        pytest.skip("GSS_CAMVID_RESULTS names no results/camvid")
    monkeypatch.setenv("GSS_DATA", str(gss_data))
    compare(["camvid/gss_ff", "camvid"], split=None, output=tmp_path / "out", results=Path(folder).parent)
    browser.open(tmp_path / "out" / "index.html")
    browser.screenshot(screenshots / "compare_camvid.png", whole=True)
    assert browser.problems() == []
    assert (tmp_path / "out" / "index.html").stat().st_size < 5e6
