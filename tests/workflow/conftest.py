from pathlib import Path

import pytest
from project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The workflow in an empty folder."""
    return Project(tmp_path)
