from pathlib import Path

import pytest

from gss.report.html import image_uri, write_page

EVIL = "<script>document.title = 'broken'</script>"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    import gss.report.html as html

    html._PAGES.loader.searchpath.append(str(tmp_path))
    (tmp_path / "table.html").write_text("""{% extends "base.html" %}{% block body %}<p>{{ title }}</p>
        <table class="sortable"><thead><tr><th>class</th><th>IoU</th></tr></thead><tbody>
        {% for name, iou in rows %}<tr><td>{{ name }}</td><td data-value="{{ iou }}">{{ iou }}</td></tr>{% endfor %}
        </tbody></table><img src="http://example.org/x.png" alt="">{% endblock %}""")
    write_page(tmp_path / "page.html", "table.html", title=EVIL, rows=[("b", 0.2), ("a", 0.9), (EVIL, ""), ("c", 0.1)])
    yield tmp_path / "page.html"
    html._PAGES.loader.searchpath.pop()


@pytest.mark.slow
def test_tables_sort_and_names_are_text(browser, page):
    browser.open(page)
    assert browser.driver.title == EVIL
    cells = "return [...document.querySelectorAll('tbody td:first-child')].map(cell => cell.textContent)"
    browser.script("document.querySelectorAll('th')[1].click()")
    assert browser.script(cells) == ["a", "b", "c", EVIL]
    browser.script("document.querySelectorAll('th')[1].click()")
    assert browser.script(cells) == ["c", "b", "a", EVIL]
    browser.script("document.querySelectorAll('th')[0].click()")
    assert browser.script(cells)[1:] == ["a", "b", "c"]
    assert any("Content Security Policy" in problem for problem in browser.problems())  # the picture from outside


def test_pictures_are_held_by_the_page(tmp_path):
    import numpy as np

    assert image_uri(np.zeros((2, 2, 3), np.uint8)).startswith("data:image/png;base64,")
