"""The measurements as text."""

from typing import Any

_HEAD = ("", "ms", "fastest - slowest", "images/s", "memory, MiB", "GMAC", "of peak")


def table(content: dict[str, Any]) -> str:
    """An aligned table of what `gss benchmark` has measured, under lines about the machine.

    Args:
        content: of the JSON file.
    """
    hardware, versions = content["hardware"], content["versions"]
    gpu = f"{hardware['gpu']}, {hardware['gpu_memory_gib']} GiB; " if "gpu" in hardware else ""
    peaks = ", ".join(f"{name} {peak:,.0f}" for name, peak in content["matrix_peak_gmac_per_s"].items())
    height, width = content["crop"]
    head = [
        f"Speed of {content['experiment']}, crop {height} x {width}, random weights",
        "",
        f"{gpu}{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} threads, "
        f"{hardware['memory_gib']} GiB; load before: {content['load_before']:.1f}",
        f"Python {versions['python']}, torch {versions['torch']}; gss {versions['gss']}, {versions['git']}",
        f"matrix peak, GMAC/s: {peaks}; loader processes: {content['loader_processes']}; images: {content['images']}",
    ]
    if content["load_before"] > hardware["cores"] / 4:
        head.append("others compute on this machine: the times are too long")
    lines: list[tuple[str, ...]] = [_HEAD]
    for section in content["sections"]:
        lines.append((section["title"][0].upper() + section["title"][1:],))
        lines += [_cells(row) for row in section["rows"]]
    widths = [max(len(line[i]) for line in lines if len(line) > 1) for i in range(len(_HEAD))]
    return "\n".join(head + [""] + [_line(cells, widths) for cells in lines])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = (_short(1000 * value) for value in row["spread"])
    speed = _short(row["images_per_s"]) if row["images_per_s"] else "-"
    counted = (_short(row["gmac"]), f"{row['peak_share']:.0%}") if row["gmac"] else ("-", "-")
    waiting = f"  waiting {row['waiting']:.0%}" if "waiting" in row else ""
    return (
        f"  {row['name']}{waiting}",
        _short(1000 * row["seconds"]),
        f"{low} - {high}",
        speed,
        f"{row['memory_mib']:.0f}",
        *counted,
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    if len(cells) == 1:
        return f"\n{cells[0]}"
    first, *rest = (
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def _short(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
