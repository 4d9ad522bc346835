"""The experiment files that the documentation shows are valid as they stand."""

import re
from pathlib import Path

import pytest

from gss.config import load_experiment

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    (page, block)
    for page in ("README.md", "config/README.md")
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
]


def test_documentation_shows_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize(("page", "block"), EXAMPLES)
def test_example_is_valid(page: str, block: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(block, encoding="utf-8")
    assert load_experiment(path).data.splits["train"].images == "images/train"
