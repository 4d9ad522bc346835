"""Imports go one way, and cheap commands stay cheap. The rooms and their order are the architecture."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A room may import rooms of the rows above its own, and of its own row as long as no circle comes about.
ROWS = (
    ("errors", "files", "filekind", "layout", "output", "collector", "config", "text", "progress"),
    ("proxy", "_compat", "cluster"),
    ("modelfile", "checkpoints", "data"),
    ("results", "nets"),
    ("train", "evaluate"),
    ("report", "compare", "tracking", "watch", "clean"),
    ("stages",),
    ("use", "benchmark", "smoke"),
    ("cli", "workflow", "snakemake_patches", "doctor", "init", "__main__"),
    ("recipes",),  # on top: they are found by name, and no room below imports one
)
ROW = {room: number for number, row in enumerate(ROWS) for room in row}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "gss").with_suffix("").parts
    return parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of gss a file imports anywhere, inside functions too."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules += [f"gss.{alias.name}" for alias in node.names] if node.module == "gss" else [node.module]
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: imports are absolute here")
    rooms = {module.split(".")[1] for module in modules if module.startswith("gss.")}
    return {room for room in rooms if (ROOT / "gss" / room).is_dir() or (ROOT / "gss" / f"{room}.py").is_file()}


FILES = sorted(path for path in (ROOT / "gss").rglob("*.py") if path.name != "__init__.py" or path.parent.name != "gss")
ARROWS = {(room_of(path), room): path for path in FILES for room in imported_rooms(path) - {room_of(path)}}


def test_every_room_has_a_place() -> None:
    assert {room_of(path) for path in FILES} <= set(ROW)


@pytest.mark.parametrize(("room", "imported"), sorted(ARROWS))
def test_imports_go_one_way(room: str, imported: str) -> None:
    assert ROW[imported] <= ROW[room], ARROWS[room, imported]


def test_rooms_form_no_circle() -> None:
    below = {room: {there for here, there in ARROWS if here == room} for room in ROW}
    while below:
        free = [room for room, needed in below.items() if not needed & set(below)]
        assert free, f"a circle among {sorted(below)}"
        for room in free:
            del below[room]


def test_networks_know_no_configuration_and_train_knows_no_mlflow() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if room_of(path) == "nets":
            assert not {"config", "files", "stages"} & imported_rooms(path), path
        assert room_of(path) == "tracking" or not ("import mlflow" in text or "from mlflow" in text), path


def test_cheap_commands_load_no_heavy_package() -> None:
    code = (
        "import sys, gss.workflow, gss.cli, gss.tracking.mlflow_sync, gss.cluster.launch; gss.cli.parser();"
        "print(*sorted({'torch', 'timm', 'mlflow', 'cv2', 'numpy', 'pandas', 'matplotlib', 'snakemake'}"
        " & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == ""


def test_stages_load_no_package_they_do_not_use() -> None:
    """What every process of every stage pays for before it begins, beside torch."""
    code = (
        "import sys, gss.stages.evaluate; from gss.recipes.gss.stages import latent_prior, posterior, merge;"
        "print(*sorted({'timm', 'torchvision', 'scipy', 'matplotlib', 'mlflow', 'pandas', 'torch._dynamo'}"
        " & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == ""
