"""A reproducible small dVAE with weights from a formula, and its test picture."""

import zlib

import numpy as np
import torch
from torch import Tensor

from gss.recipes.gss.tokenizer.dvae import DVAE

CASE_A = {"vocab_size": 32, "n_hid": 8, "n_init": 8}
CASE_B = {"vocab_size": 512, "n_hid": 32, "n_init": 16}


def procedural_values(name: str, shape: tuple[int, ...]) -> Tensor:
    x = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(2654435761) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 2246822519), (13, 3266489917)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    v = (x >> np.uint32(8)).astype(np.float64) / 2**24
    embedding = name == "decoder.blocks.input.w"
    if name == "encoder.blocks.output.conv.b":
        scale = 0.0
    elif name.endswith(".b"):
        scale = 0.1
    else:
        scale = np.sqrt(3.0) / (1.0 if embedding else np.sqrt(float(np.prod(shape[1:]))))
    values = ((2 * v - 1) * scale).astype(np.float32).reshape(shape)
    if name.endswith(".w") and not embedding and shape[1] % 2 == 0:
        values[:, 1::2] = -values[:, 0::2]
    return torch.from_numpy(values)


def procedural_dvae(case: dict[str, int]) -> DVAE:
    dvae = DVAE(**case)
    dvae.load_state_dict(
        {name: procedural_values(name, tuple(value.shape)) for name, value in dvae.state_dict().items()}
    )
    return dvae.requires_grad_(False).eval()


def picture() -> Tensor:
    """float32 [1,3,32,32] in 0..1."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    label = ((y // 8) * 3 + (x // 6) * 5) % 7
    rgb = torch.stack([(37 * label + 20) % 256, (91 * label + 120) % 256, (53 * label + 200) % 256])
    return (rgb.float() / 255)[None]
