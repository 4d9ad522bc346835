"""The tables of bench/gpu.py and their page, bench/gpu.md."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import page
import token_flips
from page import table

PAGE = Path(__file__).with_name("gpu.md")
GOAL = 56  # images/s of a GSS-FF training
HEAD = ("what", "batch", "images/s", "ms (fastest–slowest)", "peak MiB", "TFLOP/image", "of the peak", "")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table; without a time, everything it says stands in the last column."""
    start = (row["name"], str(row["batch"]))
    if "seconds" not in row:
        said = row.get("failed") or "; ".join(
            f"{key}: {value:.3g}" for key, value in row.items() if isinstance(value, float)
        )
        return (*start, *[""] * 5, said)
    speed = f"{row['images_per_s']:.1f}"
    if "stages" not in row:
        return (*start, speed, f"{1e3 * row['seconds']:.1f}", *[""] * 4)
    low, high = (f"{1e3 * value:.1f}" for value in row["spread"])
    waiting = f"waiting {row['waiting']:.1%}" if "waiting" in row else ""
    work = (f"{2e-3 * row['gmac'] / row['batch']:.3g}", f"{row['peak_share']:.0%}") if row["gmac"] else ("", "")
    return (*start, speed, f"{1e3 * row['seconds']:.1f} ({low}–{high})", f"{row['memory_mib']:,.0f}", *work, waiting)


def _stages(row: dict[str, Any]) -> list[str]:
    """Where the time of a row goes."""
    rows: list[tuple[str, ...]] = []
    for stage in row["stages"]:
        work = (f"{2e-3 * stage['gmac']:.3g}", f"{stage['peak_share']:.0%}") if stage["gmac"] else ("", "")
        rows.append(
            (
                stage["name"].strip(),
                f"{1e3 * stage['seconds']:.1f}",
                f"{stage['seconds'] / row['seconds']:.0%}",
                f"{stage['memory_mib']:,.0f}",
                *work,
            )
        )
    return [
        "",
        f"Where the time goes: {row['name']}, batch of {row['batch']}",
        "",
        *table(("stage", "ms", "share", "peak MiB", "TFLOP", "of the peak"), rows),
    ]


def tables(content: dict[str, Any]) -> str:
    """A part as markdown."""
    about, rows = content["about"], content["rows"]
    machine = about.get("gpu") or f"{about['cpu']}, no GPU"
    lines = [
        f"## {content['part']}",
        "",
        f"{about['date']}, {machine}, torch {about['torch']}, CUDA {about.get('cuda', '-')}, "
        f"timm {about['timm']}, Python {about['python']}; "
        f"peak {2 * content['peak'] / 1e12:.3g} TFLOP/s in a {content['unit']} matrix product.",
        "",
    ]
    if content["part"] == "tokens":
        for row in rows:
            if "failed" in row:
                return "\n".join([*lines, row["failed"]])
            lines += [row["of"], "", *token_flips.lines(row["rows"])]
        return "\n".join(lines)
    lines += table(HEAD, map(cells, rows))
    watched = [row for row in rows if row.get("stages")]
    if content["part"] in ("training", "prediction"):
        for name in dict.fromkeys(row["name"] for row in watched if len(row["stages"]) > 1):
            same = [row for row in watched if row["name"] == name]
            for row in {row["batch"]: row for row in (same[0], max(same, key=lambda row: row["batch"]))}.values():
                lines += _stages(row)
    if content["part"] == "prediction":
        lines += ["", *_ratios(rows)]
    if content["part"] == "training" and watched:
        best = max(watched, key=lambda row: row["images_per_s"])
        lines += ["", f"Fastest: {best['images_per_s']:.1f} images/s at a batch of {best['batch']}; goal {GOAL}."]
    return "\n".join(lines)


def _ratios(rows: list[dict[str, Any]]) -> list[str]:
    """Ours against the oracle at the same batch."""
    speeds = {(row["name"].rpartition(", ")[2], row["batch"]): row["images_per_s"] for row in rows if "stages" in row}
    found = [
        f"{speeds['ours', batch] / speed:.1f} times the oracle at a batch of {batch}"
        for (side, batch), speed in speeds.items()
        if side == "oracle" and ("ours", batch) in speeds
    ]
    return [f"Ours is {', '.join(found)}; goal 3."] if found else []


def write_page(out: Path, names: Iterable[str], target: Path = PAGE) -> None:
    """Put the tables of the named parts, those that lie in the folder, between the marks of the page."""
    found = [json.loads(path.read_text()) for name in names if (path := out / f"{name}.json").is_file()]
    page.write(target, "\n\n".join(map(tables, found)) or "Not measured yet.")
