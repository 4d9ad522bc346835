"""What the check shows of a data set: a table, and a page whose numbers are those of the report."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_results import SyntheticResults

from gss.data.manifest import read_manifest
from gss.files import read_json
from gss.report.details import data
from gss.report.overview import table, write_overview
from gss.results.reader import Results

NAMES = ("sky", "road", "a $b$ <i>")


def test_the_table_has_share_pixels_and_images_of_every_class() -> None:
    def split(pixels: int, ignored: int, classes: list[tuple[int, int]], sizes: dict[str, int]) -> dict:
        rows = [{"index": k, "name": f"c{k}", "pixels": n, "images": i} for k, (n, i) in enumerate(classes)]
        counts = {"images": sum(sizes.values()), "pixels": pixels, "ignored_pixels": ignored}
        return {**counts, "sizes": sizes, "classes": rows, "unknown_ids": {}}

    sizes = {f"{k}x8": 6 - k for k in range(1, 6)}
    found = {"train": split(1000, 200, [(600, 9), (200, 4)], sizes), "val": split(0, 0, [(0, 0), (0, 0)], {})}
    assert list(table({"splits": found})) == [
        "           train  pixels  images     val  pixels  images",
        "c0       75.00 %     600       9  0.00 %       0       0",
        "c1       25.00 %     200       4  0.00 %       0       0",
        "ignored  20.00 %     200          0.00 %       0",
        "all                 1000      15               0       0",
        "sizes in train (height x width): 1x8 (5), 2x8 (4), 3x8 (3), 4x8 (2), 1 more",
        "sizes in val (height x width): none",
    ]


def test_the_page_shows_sixteen_pictures_and_the_numbers_of_the_report(tmp_path: Path) -> None:
    made = SyntheticResults(tmp_path, NAMES, images=8)
    manifest = read_manifest(made.folder / "data" / "manifest.json")
    statistics = read_json(made.folder / "data" / "statistics.json")
    write_overview(tmp_path / "overview.html", manifest, statistics, "mine <b>")
    text = (tmp_path / "overview.html").read_text()
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', text)
    assert len(pictures) == min(16, sum(map(len, manifest.rows.values())))
    assert "<h1>mine &lt;b&gt;: the data</h1>" in text
    for row in data(Results(made.folder))["classes"]:
        for split, of in row["of"].items():
            assert f'data-value="{of["pixels"]}"' in text and f"{100 * row['share'][split]:.2f}" in text
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0][0]))))
    assert max(first.shape) == 400 and "http" not in text.replace("http-equiv", "")


@pytest.mark.slow
def test_the_page_works_in_a_browser(browser, screenshots: Path, tmp_path: Path) -> None:
    made = SyntheticResults(tmp_path, NAMES, images=8)
    manifest = read_manifest(made.folder / "data" / "manifest.json")
    write_overview(tmp_path / "o.html", manifest, read_json(made.folder / "data" / "statistics.json"), "mine")
    browser.open(tmp_path / "o.html")
    assert browser.problems() == []
    assert browser.script("return [...document.images].every(image => image.naturalWidth > 0)")
    assert browser.script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    browser.screenshot(screenshots / "overview.png", whole=True)
