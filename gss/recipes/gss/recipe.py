"""Generative Semantic Segmentation: its stages and what they depend on."""

from gss.config.recipe import CHECK, PREPARE, SUMMARISE, Recipe, Stage, evaluate
from gss.layout import MANIFEST
from gss.recipes.gss.experiment import GSSExperiment
from gss.recipes.gss.layout import (
    GSS_FF,
    GSS_FT,
    PALETTE,
    POSTERIOR,
    RECONSTRUCTION,
    ROUNDS,
    START_PALETTE,
    START_TOKENIZER,
    TOKENIZER,
)

RECIPE = Recipe(
    "gss",
    GSSExperiment,
    models={"gss_ff": "GSS-FF", "gss_ft": "GSS-FT"},
    beside=(TOKENIZER,),
    reported=(PALETTE, RECONSTRUCTION),
    listed=("gss_ff/test/mIoU", "reconstruction/test/mIoU", "gss_ff/val/mIoU"),
    publish="gss.recipes.gss.stages.exchange:export",
    stages=(
        PREPARE,
        CHECK,
        Stage(
            "palette",
            "give every class a colour",
            "gss.recipes.gss.stages.palette:palette",
            reads=("palette",),
            inputs=(MANIFEST,),
            makes=(START_PALETTE, "palette/quality.json"),
            figures="palette",
        ),
        Stage(
            "tokenizer",
            "import OpenAI's dVAE or train one on the maskiges",
            "gss.recipes.gss.stages.tokenizer:tokenizer",
            reads=("tokenizer", "seed"),
            version=2,
            in_processes=True,
            inputs=(MANIFEST, START_PALETTE),
            makes=(START_TOKENIZER,),
        ),
        Stage(
            "reconstruct",
            "check what tokens keep of labels, refine the palette",
            "gss.recipes.gss.stages.reconstruct:reconstruct",
            reads=("reconstruction", "tokenizer", "seed"),
            reads_for_reference=("numerics", "evaluation.scale"),
            version=2,
            in_processes=True,
            inputs=(MANIFEST,),
            makes=(PALETTE, TOKENIZER, RECONSTRUCTION, ROUNDS),
            figures="reconstruction",
        ),
        Stage(
            "latent_prior",
            "train the network that predicts tokens",
            "gss.recipes.gss.stages.latent_prior:latent_prior",
            verb="train latent-prior",
            reads=("latent_prior", "augment", "seed", "numerics", "data.sampling", "tokenizer.precision"),
            version=3,
            in_processes=True,
            inputs=(MANIFEST, PALETTE, TOKENIZER),
            makes=("latent_prior/*.pth", GSS_FF),
        ),
        Stage(
            "posterior",
            "train X^-1, from decoded tokens back to classes",
            "gss.recipes.gss.stages.posterior:posterior",
            verb="train posterior",
            reads=("posterior", "augment", "seed", "numerics", "data.sampling", "tokenizer.precision"),
            version=3,
            in_processes=True,
            inputs=(MANIFEST, TOKENIZER),
            makes=(POSTERIOR,),
            title="X⁻¹ (posterior)",
        ),
        Stage(
            "import",  # its inputs say it all
            "make model files of checkpoints of the published code (mmseg)",
            "gss.recipes.gss.stages.exchange:import_checkpoints",
            inputs=(MANIFEST, PALETTE, TOKENIZER),
        ),
        Stage(
            "merge",
            "make one model file of latent prior and posterior",
            "gss.recipes.gss.stages.merge:merge",
            inputs=(GSS_FF,),
            makes=(GSS_FT,),
        ),
        evaluate("tokenizer.precision", version=3),
        SUMMARISE,
    ),
)
