"""Results folders with small, untrained models: enough to predict, in seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gss.config import load_experiment
from gss.modelfile import save_model
from gss.recipes.gss.assemble import build_posterior, build_prior
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.store import save_tokenizer

NETWORKS: dict[str, dict[str, Any]] = {
    "efficientnet": {"name": "tf_efficientnet_lite0"},
    "resnet, dilated": {"name": "resnet10t", "output_stride": 8},
    "swin": {
        "name": "swin_tiny_patch4_window7_224",
        "options": {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4},
    },
}


def write_models(
    folder: Path,
    *,
    num_classes: int = 5,
    classes: Sequence[str] = (),
    backbone: str = "efficientnet",
    variant: str = "window",
    kind: str = "tokens",
    **evaluation: Any,
) -> Path:
    """Write `gss_ff.pth`, `gss_ft.pth` and `tokenizer.safetensors` as the stages do; the same ones every time.

    Args:
        classes: names; default: `num_classes` made-up ones.
        variant: of the X^-1.
        kind: of the latent prior's head.
        evaluation: keys of the section `evaluation`.

    Returns:
        the folder.
    """
    torch.manual_seed(0)
    classes = classes or [f"class {index}" for index in range(num_classes)]
    tokenizer = DVAE(vocab_size=32, n_hid=8, n_init=8, blocks_per_group=1)
    sha256 = save_tokenizer(folder / "tokenizer.safetensors", tokenizer, {"source": "test"})
    config = load_experiment("toy").model_dump(mode="json")
    config["evaluation"] |= {"token_temperature": None, "token_weight": 0.0, **evaluation}  # the published method
    meta: dict[str, Any] = {
        "classes": list(classes),
        "palette": np.random.default_rng(0).integers(120, 137, (len(classes) + 1, 3)).tolist(),  # near what it decodes
        "tokenizer": sha256,
        "vocab_size": 32,
        "latent_prior": {
            "backbone": NETWORKS[backbone],
            "kind": kind,
            "channels": 16,
            "seg_channels": 16,
            "cls_channels": 16,
            "swin_depth": 2,
            "num_heads": 2,
            "token_stride": 4,
            "dropout": 0.1,
        },
        "posterior": {"variant": variant, "channels": 16},
        "provenance": {"config": config},
    }
    prior = build_prior(meta).eval()
    posterior = build_posterior(meta).eval()
    tensors = {f"prior.{name}": value for name, value in prior.state_dict().items()}
    save_model(folder / "gss_ff.pth", "gss_ff", tensors, meta)
    tensors |= {f"posterior.{name}": value for name, value in posterior.state_dict().items()}
    save_model(folder / "gss_ft.pth", "gss_ft", tensors, meta)
    return folder
