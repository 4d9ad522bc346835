"""Per-pixel networks: their stages and what they depend on."""

from gss.config.recipe import CHECK, MAKE_LABELS, PREPARE, SUMMARISE, Recipe, Stage, evaluate
from gss.layout import MANIFEST
from gss.recipes.pixel.experiment import PixelExperiment

RECIPE = Recipe(
    "pixel",
    PixelExperiment,
    models={"pixel": "Pixel"},
    publish="gss.recipes.pixel.exchange:export",
    stages=(
        PREPARE,
        MAKE_LABELS,
        CHECK,
        Stage(
            "pixel",
            "train a per-pixel network",
            "gss.recipes.pixel.stage:pixel",
            verb="train pixel",
            reads=("pixel", "augment", "seed", "numerics", "data.sampling"),
            in_processes=True,
            inputs=(MANIFEST,),
            splits=("train",),
            makes=("pixel.pth",),
        ),
        Stage(
            "import",  # its inputs say it all
            "make a model file of a checkpoint of published code",
            "gss.recipes.pixel.exchange:import_checkpoint",
            inputs=(MANIFEST,),
            splits=("train",),
        ),
        evaluate(),
        SUMMARISE,
    ),
)
