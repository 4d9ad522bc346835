"""Standard output and error of every command: any character, and a clear end where they cannot be written."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

from gss.errors import GssError, OutputClosed

STREAMS = ("stdin", "stdout", "stderr")


class Output(io.TextIOWrapper):
    """Standard output or error whose faults are told from those of files.

    After the first one what is printed goes nowhere: the message about it, and Python's own last flush, meet no second.

    Raises:
        OutputClosed: nobody reads it any more, as in `gss ... | head`.
        GssError: it cannot be written, such as into a file on a full disk.
    """

    def write(self, text: str) -> int:
        with self._told():
            return super().write(text)

    def flush(self) -> None:
        with self._told():
            super().flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if error.errno == errno.EPIPE:
                raise OutputClosed from error
            raise GssError(
                f"standard {'output' if self.fileno() == 1 else 'error'} cannot be written: {error.strerror}",
                todo="redirect it elsewhere, then run the same command again",
            ) from error


def open_output() -> None:
    """Make standard output and error this process's `Output`; where the caller has closed one, it goes nowhere.

    Descriptors 0 to 2 are open then: the next file would get a closed one's number, and with it what libraries print.
    """
    for number, name in enumerate(STREAMS):
        stream = getattr(sys, name)
        if stream is None:
            _open_nowhere(number)
            stream = open(os.devnull, "r" if number == 0 else "w", encoding="utf-8")  # noqa: SIM115 (until the end)
        elif number and type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            options = {key: getattr(stream, key) for key in ("encoding", "line_buffering", "write_through")}
            stream = Output(stream.detach(), errors="backslashreplace", **options)
        else:
            continue
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _open_nowhere(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(nowhere, number)
            os.close(nowhere)
