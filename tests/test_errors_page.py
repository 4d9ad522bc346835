"""docs/reference/errors.md: every message that a user may meet. `python tests/test_errors_page.py` writes it anew."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/errors.md"
ERRORS = ("GssError", "ConfigError", "DataError", "CheckpointError", "TokenizerError", "NotFinite")
BLANK = "…"
ROOMS = {
    "Experiments, keys, names": ("config", "extensions"),
    "Photographs and labels": ("data", "init"),
    "Trainings": ("stages", "train", "nets", "recipes", "benchmark", "smoke"),
    "Files of models, checkpoints, weights": ("checkpoints", "modelfile", "filekind", "_compat"),
    "Results: figures, reports, comparisons": ("evaluate", "report", "results", "compare", "clean", "watch"),
    "Prediction and export": ("use",),
    "Machines, SLURM, MLflow": ("cluster", "doctor", "tracking"),
    "Everywhere": (),
}
HEAD = f"""# Messages and what to do

Every error says what happened, where (file, key, class, value) and what to do, and ends with exit code 2; other codes:
0 done, 1 a fault of gss itself (please report it), 3 some inputs failed and the rest is done, 75 interrupted in good
order (the same command goes on), 130 interrupted, 141 nobody reads the output. `{BLANK}` is what differs from case to
case. Where no cure stands, the message itself says it.

Made by `python tests/test_errors_page.py` from the sources.
"""


class Message(NamedTuple):
    """What a place in the sources may say."""

    room: str
    what: str
    todo: str


def messages(file: Path, room: str) -> Iterator[Message]:
    """The errors and faults of data that a module raises or collects."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for scope, call in _calls(tree, tree):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        todo = next((keyword.value for keyword in call.keywords if keyword.arg == "todo"), None)
        place = 1 if name == "Fault" else 0
        if (name in (*ERRORS, "Fault") or (name == "ValueError" and room == "config")) and len(call.args) > place:
            yield Message(room, text_of(call.args[place], scope), "" if todo is None else text_of(todo, scope))


def text_of(node: ast.AST, scope: ast.AST, depth: int = 0) -> str:
    """The words of an expression; what is known only when it happens is a blank."""
    match node:
        case ast.Constant(value=str(words)):
            return words
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, scope) if isinstance(part, ast.Constant) else BLANK for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left, scope) + text_of(right, scope)
        case ast.IfExp(body=body, orelse=other):
            return max(text_of(body, scope), text_of(other, scope), key=len)
        case ast.Name(id=name) if depth < 3:
            for each in ast.walk(scope):
                if isinstance(each, ast.Assign) and any(getattr(to, "id", "") == name for to in each.targets):
                    return text_of(each.value, scope, depth + 1)
    return BLANK


def _calls(node: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield scope, child
        yield from _calls(child, child if isinstance(child, ast.FunctionDef) else scope)


def page() -> str:
    """The page as it has to be, Markdown."""
    rooms = {room: title for title, names in ROOMS.items() for room in names}
    found: dict[str, set[tuple[str, str]]] = {title: set() for title in ROOMS}
    for file in sorted((ROOT / "gss").rglob("*.py")):
        room = file.relative_to(ROOT / "gss").parts[0].removesuffix(".py")
        for message in messages(file, room):
            if message.what.strip(f"{BLANK}:;,. "):
                found[rooms.get(room, "Everywhere")].add((_cell(message.what), _cell(message.todo)))
    lines = [HEAD]
    for title, rows in found.items():
        lines += [f"## {title}", "", "| message | to do |", "|---|---|"]
        lines += [f"| {what} | {todo.strip(BLANK) and todo} |" for what, todo in sorted(rows)]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Words as a cell of a table; blanks beside each other are one."""
    while BLANK * 2 in text:
        text = text.replace(BLANK * 2, BLANK)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def test_the_page_has_every_message() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run python tests/test_errors_page.py"


@pytest.mark.parametrize(
    ("source", "what", "todo"),
    [
        ('raise ConfigError(f"no {x}", todo="write " + y)', "no …", "write …"),
        ('def f():\n  what = "a long text" if x else "short"\n  raise DataError(what)', "a long text", ""),
        ('Fault(name, f"size {a}{b}")', "size ……", ""),
    ],
)
def test_words_are_found(tmp_path: Path, source: str, what: str, todo: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(source)
    assert [*messages(file, "data")] == [("data", what, todo)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
