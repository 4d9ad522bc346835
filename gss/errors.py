"""Errors a user can mend, and the signal of an orderly interruption."""

import difflib
from collections.abc import Iterable
from pathlib import Path

_NO_MEMORY = (
    "out of memory",
    "allocate",
    "alloc_failed",
    "not enough memory",
    "insufficient memory",
    "bad_alloc",
    "new thread",
)


def shown(text: str | Path) -> str:
    r"""A name from a disk as one line of plain text: what cannot be printed is escaped.

    Bytes that are not UTF-8 become `\xdf`, control characters `\n`, `\x1b`.
    """
    text = str(text)
    if text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """`did you mean 'toy'?`, where one of the known names is near."""
    near = difflib.get_close_matches(name, [*known], n=1)
    return f"did you mean {near[0]!r}?" if near else None


class GssError(Exception):
    """Something the user can mend: printed without a traceback, exit code 2.

    Args:
        what: what happened, with the values found and the values allowed.
        where: file, key, row or class it happened in.
        todo: what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | Path | None = None, todo: str | None = None) -> None:
        self.what, self.where, self.todo = what, where, todo
        lines = [what]
        if where is not None:
            lines.append(f"  where: {shown(where)}")
        if todo is not None:
            lines.append(f"  to do: {todo}")
        super().__init__("\n".join(lines))


class ConfigError(GssError):
    """The configuration says something impossible."""


class DataError(GssError):
    """An image, a label or a data set is not what its description says."""


class CheckpointError(GssError):
    """A model file or a checkpoint cannot be used."""


class TokenizerError(GssError):
    """A tokenizer file cannot be used, or its training collapsed."""


class OutputClosed(GssError):
    """Nobody reads any more what a command prints, as in `gss ... | head`: a quiet end, as that of any program."""

    exit_code = 141  # 128 + SIGPIPE

    def __init__(self) -> None:
        super().__init__("nobody reads the output any more")


def is_no_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed: torch, OpenCV and the system have no common class for it."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


class Interrupted(Exception):
    """Training stopped in good order after `step` steps; the same command goes on. Exit code 75.

    Args:
        deadline: because the time of the job was nearly over: it should go on in a new one.
    """

    exit_code = 75

    def __init__(self, message: str, *, step: int = 0, deadline: bool = False) -> None:
        super().__init__(message)
        self.step, self.deadline = step, deadline
