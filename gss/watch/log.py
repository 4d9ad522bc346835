"""What the log of a job says about how far it is."""

import re
from dataclasses import dataclass
from pathlib import Path

from gss.cluster.log import last_lines
from gss.text import percent

_LINES = 400
# The lines of `gss.train.progress` and `gss.progress`.
_STEP = re.compile(
    r"step (?P<done>\d+)/(?P<all>\d+)  loss (?P<loss>\S+)  .*  (?P<speed>\S+ img/s)  .*  ETA (?P<left>[\d:]+)"
)
_PIECES = re.compile(
    r"(?P<title>.*\S) (?P<done>\d+)/(?P<all>\d+)  (?P<speed>\S+ \S+/s)  (?P<kind>ETA|in) (?P<left>[\d:]+)"
)
_SCORE = re.compile(r"step \d+/\d+  val/mIoU (?P<score>[\d.]+)")


@dataclass(frozen=True)
class Reading:
    """What a log says last.

    Args:
        text: `step 120/450  loss 0.67  mIoU 93.1  53.2 img/s`, or how far a stage that does not train is.
        left: seconds that were left then; None: it says nothing of its end.
        step: of a training.
        until: the step it ends at.
        fault: the first line of the error it ended with.
    """

    text: str = ""
    left: float | None = None
    step: int | None = None
    until: int | None = None
    fault: str = ""


def read_log(path: Path) -> Reading:
    """What the latest start of a job says in its log; nothing where there is none that can be read."""
    try:
        lines = last_lines(path, _LINES)
    except OSError:
        return Reading()
    fault = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
    score = next((found["score"] for line in reversed(lines) if (found := _SCORE.match(line))), None)
    piece = Reading(fault=fault)
    for line in reversed(lines):
        if found := _STEP.match(line):
            if found["done"] == found["all"] and piece.left is not None:
                return piece  # what comes after a training; on its way, a validation's end is not the training's
            words = [f"step {found['done']}/{found['all']}", f"loss {found['loss']}"]
            words += [f"mIoU {percent(float(score))}"] if score else []
            text = "  ".join([*words, found["speed"]])
            return Reading(text, _seconds(found["left"]), int(found["done"]), int(found["all"]), fault)
        if not piece.text and (found := _PIECES.fullmatch(line)):
            # An end is that of a part, of which a stage may have several.
            left = _seconds(found["left"]) if found["kind"] == "ETA" else None
            piece = Reading(f"{found['title']} {found['done']}/{found['all']}  {found['speed']}", left, fault=fault)
    return piece


def _seconds(clock: str) -> float:
    """Seconds of what `gss.progress.clock` writes."""
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return float(total)
