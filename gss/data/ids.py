"""Class ids as tensors: uint8 where arrays are, int32 where those are uint16, for which torch has few operators."""

import numpy as np
import torch
from torch import Tensor

from gss.data.classes import ids_dtype


def tensor_dtype(num_classes: int) -> torch.dtype:
    """Type of the class ids in tensors: uint8 for up to 254 classes, else int32."""
    return torch.uint8 if ids_dtype(num_classes) is np.uint8 else torch.int32


def ids_tensor(ids: np.ndarray) -> Tensor:
    """Class ids as a tensor on the CPU; uint8 shares the memory of the array."""
    return torch.from_numpy(ids if ids.dtype == np.uint8 else ids.astype(np.int32))
