"""The pages speak of what is there: links lead somewhere, and files, modules and rooms that they name exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gss.cli import parser
from tests.test_architecture import ROWS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("config/*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
MADE_BY_EXTEND = ("pyramid", "exposure", "majority", "toy_pixel", "toy_floor")  # the examples of docs/how-to/extend.md


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not link.startswith(("http:", "https:")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_start_page_leads_to_every_page() -> None:
    start = ROOT / "docs/README.md"
    known = {(start.parent / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)\s]+)\)", text(start))}
    assert not [page for page in (ROOT / "docs").rglob("*.md") if page not in {*known, start}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_exist(page: Path) -> None:
    content = text(page)
    files = re.findall(r"(?<![\w/.-])((?:gss|rules|tests|config|docs|envs|bench|slurm)/[\w/.-]*\w)", content)
    files += re.findall(r"`((?:\w+/)?test_\w+\.py)`", content)
    modules = re.findall(r"(?<![\w/-])(gss(?:\.[a-z]\w*)+)", content)
    assert not [
        name for name in files if not (is_example(name) or (ROOT / name).exists() or (ROOT / "tests" / name).exists())
    ]
    assert not [name for name in modules if not (is_example(name) or is_there(name))]


def commands(page: Path) -> Iterator[str]:
    """Calls of `gss` in the blocks of code of a page."""
    is_fenced = False
    for line in text(page).splitlines():
        is_fenced ^= line.startswith("```")
        if (is_fenced or line.startswith("    ")) and (call := re.match(r"\s*(?:\$ )?(gss [a-z].*)", line)):
            yield re.split(r"\s#|\s[>|&]|;", call[1])[0]


@pytest.mark.parametrize("page", [page for page in PAGES if [*commands(page)]], ids=lambda page: page.name)
def test_commands_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page):
        try:
            given, rest = parser().parse_known_args(shlex.split(command)[1:])
        except SystemExit:
            pytest.fail(f"{command}: {capsys.readouterr().err}")
        assert not [word for word in rest if word.startswith("-") or not ("=" in word or "file" in given)], command


def is_example(name: str) -> bool:
    """Whether a page speaks of what a reader makes, or of an experiment of MLflow."""
    return any(word in name for word in (*MADE_BY_EXTEND, "NAME", "RECIPE", "mine")) or name == "gss/toy"


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or a word of the source of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if source.is_file():
            return (
                length == len(parts)
                or re.search(rf"\b{parts[length]}\b", source.read_text(encoding="utf-8")) is not None
            )
    return False


def test_rooms_are_those_of_the_architecture() -> None:
    picture = re.search(
        r"^```\n(recipes .*?)^```", text(ROOT / "docs/explanation/architecture.md"), re.DOTALL | re.MULTILINE
    )
    assert picture is not None
    rows = [tuple(re.split(r"  +", line)[0].split()) for line in picture[1].splitlines()]
    assert rows[::-1] == list(ROWS)
