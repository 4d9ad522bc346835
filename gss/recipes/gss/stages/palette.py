"""Stage 2: one colour per class."""

from pathlib import Path

from gss.data.classes import ClassSpace
from gss.evaluate.plots import palette_swatches
from gss.files import remove, write_json
from gss.layout import MANIFEST
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.experiment import Palette as Config
from gss.recipes.gss.palette.palette import IGNORE, Palette, write_palette
from gss.recipes.gss.palette.strategies import make_palette
from gss.stages.run import Run


def palette(run: Run[GSSExperiment]) -> None:
    """Write `palette/start.csv` (N+1 rows), its distances `palette/quality.json` and its swatches."""
    config = run.experiment.palette
    made = start_palette(config, run.space, quiet=False)
    folder = run.folder / "palette"
    quality = made.quality()
    print(f"smallest distance of two colours: {quality['d_min']:.1f} ({' and '.join(quality['closest'])})", flush=True)
    inputs = run.inputs(run.folder / MANIFEST, *([Path(config.file)] if config.file else []))
    with run.stage("palette", inputs) as journal:
        assert journal is not None
        journal.figures({f"palette/{name}": value for name, value in quality.items() if isinstance(value, int | float)})
        remove(folder / "start.csv")
        palette_swatches(folder / "start.png", (*made.names, IGNORE), made.colours)
        journal.artifact(folder / "start.png")
        write_json(folder / "quality.json", quality)
        write_palette(folder / "start.csv", made)


def start_palette(config: Config, space: ClassSpace, *, quiet: bool = True) -> Palette:
    """The palette an experiment begins with; see `make_palette`."""
    return make_palette(
        config.strategy,
        space.names,
        seed=config.seed,
        published=config.published,
        file=Path(config.file) if config.file else None,
        colours=space.colours,
        quiet=quiet,
    )
