"""Generative Semantic Segmentation: its stages and what they depend on."""

from gss.config.recipe import CHECK, PREPARE, Recipe, Stage, evaluate
from gss.recipes.gss.experiment import GSSExperiment

_MANIFEST, _PALETTE, _TOKENIZER = "data/manifest.json", "palette.csv", "tokenizer.safetensors"

RECIPE = Recipe(
    "gss",
    GSSExperiment,
    models={"gss_ff": "GSS-FF", "gss_ft": "GSS-FT"},
    beside=(_TOKENIZER,),
    reported=("palette.csv", "reconstruction/metrics.json"),
    publish="gss.recipes.gss.stages.exchange:export",
    stages=(
        PREPARE,
        CHECK,
        Stage(
            "palette",
            "give every class a colour",
            "gss.recipes.gss.stages.palette:palette",
            reads=("palette",),
            inputs=(_MANIFEST,),
            makes=("palette/start.csv", "palette/quality.json"),
            figures="palette",
        ),
        Stage(
            "tokenizer",
            "import OpenAI's dVAE or train one on the maskiges",
            "gss.recipes.gss.stages.tokenizer:tokenizer",
            reads=("tokenizer", "seed"),
            version=2,
            in_processes=True,
            inputs=(_MANIFEST, "palette/start.csv"),
            makes=("tokenizer/start.safetensors",),
        ),
        Stage(
            "reconstruct",
            "check label -> maskige -> tokens -> label, refine the palette",
            "gss.recipes.gss.stages.reconstruct:reconstruct",
            reads=("reconstruction", "tokenizer", "seed"),
            reads_for_reference=("numerics", "evaluation.scale"),
            version=2,
            in_processes=True,
            inputs=(_MANIFEST,),
            makes=(_PALETTE, _TOKENIZER, "reconstruction/metrics.json", "reconstruction/rounds.csv"),
            figures="reconstruction",
        ),
        Stage(
            "latent_prior",
            "train the network that predicts tokens",
            "gss.recipes.gss.stages.latent_prior:latent_prior",
            verb="train latent-prior",
            reads=("latent_prior", "augment", "seed", "numerics", "tokenizer.precision"),
            version=3,
            in_processes=True,
            inputs=(_MANIFEST, _PALETTE, _TOKENIZER),
            makes=("latent_prior/*.pth", "gss_ff.pth"),
        ),
        Stage(
            "posterior",
            "train X^-1, from decoded tokens back to classes",
            "gss.recipes.gss.stages.posterior:posterior",
            verb="train posterior",
            reads=("posterior", "augment", "seed", "numerics", "tokenizer.precision"),
            version=3,
            in_processes=True,
            inputs=(_MANIFEST, _TOKENIZER),
            makes=("posterior.pth",),
            title="X⁻¹ (posterior)",
        ),
        Stage(
            "import",  # its inputs say it all
            "make model files of checkpoints of the published code (mmseg)",
            "gss.recipes.gss.stages.exchange:import_checkpoints",
            inputs=(_MANIFEST, _PALETTE, _TOKENIZER),
        ),
        Stage(
            "merge",
            "make one model file of latent prior and posterior",
            "gss.recipes.gss.stages.merge:merge",
            inputs=("gss_ff.pth",),
            makes=("gss_ft.pth",),
        ),
        evaluate("tokenizer.precision", version=3),
    ),
)
