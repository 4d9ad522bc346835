import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `project`: pytest's importlib mode does not
from project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The workflow in an empty folder."""
    return Project(tmp_path)
