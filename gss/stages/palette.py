"""Stage 2: one colour per class."""

from gss.files import remove, write_json
from gss.palette.palette import write_palette
from gss.palette.strategies import make_palette
from gss.report.plots import palette_swatches
from gss.stages.run import Run


def palette(run: Run) -> None:
    """Write `palette/start.csv` (N+1 rows), its distances `palette/quality.json` and its swatches."""
    config = run.experiment.palette
    space = run.space
    made = make_palette(
        config.strategy,
        space.names,
        seed=config.seed,
        published=config.published,
        colours=space.colours,
        quiet=False,
    )
    folder = run.folder / "palette"
    quality = made.quality()
    print(f"smallest distance of two colours: {quality['d_min']:.1f} ({' and '.join(quality['closest'])})", flush=True)
    inputs = run.inputs(run.folder / "data" / "manifest.json")
    with run.stage("palette", inputs) as journal:
        assert journal is not None
        journal.figures(
            {f"palette/{name}": value for name, value in quality.items() if isinstance(value, int | float)}
        )
        remove(folder / "start.csv")
        palette_swatches(folder / "start.png", made)
        journal.artifact(folder / "start.png")
        write_json(folder / "quality.json", quality)
        write_palette(folder / "start.csv", made)
