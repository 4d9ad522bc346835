"""Label crops to train a tokenizer on: half of them chosen so that every class is seen equally often."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from gss.data.classes import ignore_index
from gss.data.ids import ids_tensor
from gss.data.loader import sample_seed
from gss.errors import ConfigError, DataError

BALANCED = 0.5  # share of crops around a pixel of a uniformly drawn class
FLIP = 0.5


class MaskigeCrops:
    """Endless batches of label crops, a pure function of (seed, step) and the same for any number of processes.

    The global batch of step t is made of the samples t * B ... (t + 1) * B - 1; rank r takes the r-th equal part.

    Args:
        labels: uint8 or uint16 [H,W] each, class ids 0..N-1 or `ignore_index(N)`; all of them are asked for once, then
            one for every crop.
        num_classes: N.
        batch_size: B, crops of one step over all processes.
        crop: side P of the painted crop in maskige pixels, a multiple of 8: P / 2 label pixels, as labels are doubled.
        start_step: step of the first batch.

    Raises:
        ConfigError: a size that cannot be divided.
        DataError: no labels.
    """

    def __init__(
        self,
        labels: Sequence[np.ndarray],
        num_classes: int,
        *,
        seed: int,
        batch_size: int,
        crop: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        if batch_size % world_size:
            raise ConfigError(
                f"tokenizer batch_size {batch_size} cannot be divided among {world_size} processes",
                todo=f"choose a multiple of {world_size}",
            )
        if crop % 8:
            raise ConfigError(f"tokenizer crop {crop} is no multiple of 8", todo=f"choose {crop // 8 * 8 or 8}")
        if not labels:
            raise DataError("no labels to train the tokenizer on", todo="run the check stage")
        self.labels, self.seed, self.side, self.start_step = labels, seed, crop // 2, start_step
        self.batch_size, self.rank, self.share = batch_size, rank, batch_size // world_size
        self._rng = np.random.RandomState()  # seeded for every sample: a new one takes longer than all of its crop
        values = [*range(num_classes), ignore_index(num_classes)]
        counts = [np.bincount(labels[i].ravel(), minlength=values[-1] + 1)[values] for i in range(len(labels))]
        pixels = np.stack(counts, 1)  # [N+1,labels]
        self.present = [(value, row.cumsum()) for value, row in zip(values, pixels, strict=True) if row.any()]

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
        """One dict per step, in a list: `label` [B / world_size, P/2, P/2], see `gss.data.ids`."""
        step = self.start_step
        while True:
            first = step * self.batch_size + self.rank * self.share
            crops = [self.sample(position) for position in range(first, first + self.share)]
            yield [{"label": ids_tensor(np.stack(crops))}]
            step += 1

    def sample(self, position: int) -> np.ndarray:
        """The crop at a position of the stream, [P/2,P/2] of the labels' type."""
        rng = self._rng
        rng.seed(sample_seed(self.seed, position))
        if rng.random_sample() < BALANCED:
            label, y, x = self._around_a_class(rng)
        else:
            label = self._label(rng.randint(len(self.labels)))
            y, x = rng.randint(label.shape[0] - self.side + 1), rng.randint(label.shape[1] - self.side + 1)
        crop = label[y : y + self.side, x : x + self.side]
        return crop[:, ::-1] if rng.random_sample() < FLIP else crop

    def _label(self, index: int) -> np.ndarray:
        return _pad(self.labels[index], self.side)

    def _around_a_class(self, rng: np.random.RandomState) -> tuple[np.ndarray, int, int]:
        """A label and the corner of a crop in it that holds a random pixel of a random class."""
        value, pixels = self.present[rng.randint(len(self.present))]
        label = self._label(int(np.searchsorted(pixels, rng.randint(pixels[-1]), side="right")))
        places = np.flatnonzero(label == value)
        place = divmod(int(places[rng.randint(len(places))]), label.shape[1])
        y, x = (
            min(max(at - rng.randint(self.side), 0), size - self.side)
            for at, size in zip(place, label.shape, strict=True)
        )
        return label, y, x


def _pad(label: np.ndarray, side: int) -> np.ndarray:
    """Ignored pixels at the bottom and right of labels smaller than a crop."""
    height, width = label.shape
    missing = ((0, max(side - height, 0)), (0, max(side - width, 0)))
    return np.pad(label, missing, constant_values=np.iinfo(label.dtype).max) if max(map(sum, missing)) else label
