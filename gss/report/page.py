"""`report.html`: everything about the results of an experiment on one page that needs nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gss.errors import GssError
from gss.files import remove, replace_with_link, sha256_file, write_error
from gss.layout import MANIFEST, REPORT, STATISTICS, SUMMARY
from gss.report.calibration import calibration
from gss.report.curves import curves
from gss.report.details import configuration, cost, data
from gss.report.html import write_page
from gss.report.layers import layers
from gss.report.provenance import config_sha256, provenance
from gss.report.scores import confusion, per_class, summary
from gss.report.sets import sets
from gss.results.reader import Results
from gss.results.records import write_record

Sections = dict[str, tuple[str, Callable[[Results], Any]]]
SECTIONS: Sections = {
    "summary": ("Summary", summary),
    "pictures": ("Pictures", layers),
    "classes": ("Classes", per_class),
    "confusion": ("Confusion", confusion),
    "calibration": ("Calibration", calibration),
    "sets": ("Test sets", sets),
    "curves": ("Training", curves),
    "data": ("Data", data),
    "configuration": ("Configuration", configuration),
    "cost": ("Time", cost),
    "provenance": ("Provenance", provenance),
}


# What sections read beside evaluations and what these were made from.
READ = (MANIFEST, STATISTICS)


def write_report(folder: Path, *, notice: str = "") -> Path:
    """Write `report.html` into a results folder; a section whose files are missing says so.

    Beside it, `report_pictures/` gathers the panels of all evaluations for Snakemake's own report. (The rule of the
    evaluation cannot declare them: Snakemake would know nothing of the settings of evaluations made before.)

    Args:
        folder: `results/<experiment>`.
        notice: shown above everything, such as that the figures are synthetic.

    Returns:
        The path of the page.

    Raises:
        GssError: the folder does not exist, or the page cannot be written.
    """
    if not folder.is_dir():
        raise GssError("no results of this experiment", where=folder, todo=f"snakemake {folder}/report.html")
    results = Results(folder)
    found: dict[str, Any] = {}
    missing: dict[str, GssError] = {}
    sections = _sections(results)
    for name, (_, section) in sections.items():
        try:
            found[name] = section(results)
        except GssError as error:
            missing[name] = error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing[name] = GssError(
                f"the stored files are not of this version ({type(error).__name__}: {error})",
                where=folder,
                todo="show them with the version that made them, or make them anew",
            )
    _gather_pictures(results)
    page = folder / REPORT
    write_page(
        page,
        "report.html",
        title=f"{results.name}: report",
        name=results.name,
        notice=notice,
        recipe=results.recipe.name,
        sections={name: title for name, (title, _) in sections.items()},
        found=found,
        missing=missing,
        config_sha256=config_sha256(results),
    )
    shown = [found.folder / "metrics.json" for found in (*results.evaluations.values(), *results.sets.values())]
    shown += [folder / SUMMARY.replace("*", model) for model in results.summaries]
    shown += [folder / file for file in results.recipe.reported if (folder / file).is_file()]
    inputs = {str(path.relative_to(folder)): sha256_file(path) for path in shown}
    write_record(folder, "report", {"settings": {}, "inputs": inputs})
    return page


def _sections(results: Results) -> Sections:
    """The common sections, those of the recipe behind that of the data."""
    has_sets = results.sets or results.setting("evaluation.sets")
    names = [name for name in SECTIONS if name != "sets" or has_sets]
    place = names.index("data") + 1
    own: Sections = results.recipe.part("report").SECTIONS
    return {
        **{name: SECTIONS[name] for name in names[:place]},
        **own,
        **{name: SECTIONS[name] for name in names[place:]},
    }


def _gather_pictures(results: Results) -> None:
    gathered = results.folder / "report_pictures"
    remove(gathered)
    try:
        gathered.mkdir()
    except OSError as error:
        raise write_error(gathered, error) from error
    for (model, split), found in {**results.evaluations, **results.sets}.items():
        for path in (found.folder / "pictures").glob("*.png"):
            replace_with_link(path, gathered / model / split / path.name)
