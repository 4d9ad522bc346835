"""`report.html`: everything about the results of an experiment on one page that needs nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gss.errors import GssError
from gss.report.curves import curves
from gss.report.details import configuration, cost, data, palette
from gss.report.html import write_page
from gss.report.layers import layers
from gss.report.provenance import config_sha256, provenance
from gss.report.results import Results
from gss.report.scores import confusion, per_class, summary

SECTIONS: dict[str, tuple[str, Callable[[Results], Any]]] = {
    "summary": ("Summary", summary),
    "pictures": ("Pictures", layers),
    "classes": ("Classes", per_class),
    "confusion": ("Confusion", confusion),
    "curves": ("Training", curves),
    "data": ("Data", data),
    "palette": ("Palette", palette),
    "configuration": ("Configuration", configuration),
    "cost": ("Time", cost),
    "provenance": ("Provenance", provenance),
}


def write_report(folder: Path, *, notice: str = "") -> Path:
    """Write `report.html` into a results folder; a section whose files are missing says so.

    Args:
        folder: `results/<experiment>`.
        notice: shown above everything, such as that the figures are synthetic.

    Returns:
        The path of the page.

    Raises:
        GssError: the folder does not exist, or the page cannot be written.
    """
    if not folder.is_dir():
        raise GssError("no results of this experiment", where=folder, todo=f"snakemake {folder}/gss_ft.pth")
    results = Results(folder)
    found: dict[str, Any] = {}
    missing: dict[str, GssError] = {}
    for name, (_, section) in SECTIONS.items():
        try:
            found[name] = section(results)
        except GssError as error:
            missing[name] = error
    page = folder / "report.html"
    write_page(
        page,
        "report.html",
        title=f"{results.name}: report",
        name=results.name,
        notice=notice,
        sections={name: title for name, (title, _) in SECTIONS.items()},
        found=found,
        missing=missing,
        config_sha256=config_sha256(results),
    )
    return page
