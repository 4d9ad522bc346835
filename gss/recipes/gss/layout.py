"""The files that the stages of GSS leave for each other, by their paths in `results/<experiment>/`."""

START_PALETTE, START_TOKENIZER = "palette/start.csv", "tokenizer/start.safetensors"  # before the check refines them
PALETTE, TOKENIZER = "palette.csv", "tokenizer.safetensors"
RECONSTRUCTION, ROUNDS = "reconstruction/metrics.json", "reconstruction/rounds.csv"
GSS_FF, POSTERIOR, GSS_FT = "gss_ff.pth", "posterior.pth", "gss_ft.pth"


def milestone(step: int) -> str:
    """The latent prior at a milestone that is not its last."""
    return f"latent_prior/step_{step}.pth"
