"""A loss that draws pixels of one class together and those of two classes apart, where they are of different data sets.

Letters: B batch, C channels, h w size of the encoder's last map, D draws, M pairs.

Source: Motiian et al. 2017 (CCSA), and MSeg's trainings with it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_DRAWS = 256  # for each pair of one class that is wanted; there are pairs of two classes in plenty
_APART = 3  # pairs of two classes for each of one
_MARGIN, _LEAST = 1.0, 1e-8


@dataclass(frozen=True)
class CCSA:
    """The contrastive loss of pairs of pixels.

    Args:
        pairs: of one class, drawn from a micro-batch; of two classes three times as many.
        broadcast: as published, which forgets which of the pairs are of one class: each is counted as one of either
            kind, by the share of the kinds.
    """

    pairs: int = 1000
    broadcast: bool = False

    def __call__(self, embedding: Tensor, label: Tensor, source: Tensor, ignored: int) -> Tensor:
        """Mean over the pairs drawn, []; 0 without any.

        Args:
            embedding: the encoder's last map, [B, C, h, w].
            label: integers [B, H, W]; `ignored` is no class.
            source: int64 [B], the data set of each sample.
        """
        first, second, is_same, is_drawn = draw_pairs(at_size(label, embedding), source, self.pairs, ignored)
        vectors = embedding.permute(0, 2, 3, 1).flatten(0, 2)  # [B * h * w, C]
        wide = torch.promote_types(vectors.dtype, torch.float32)
        square = (vectors[first].to(wide) - vectors[second].to(wide)).square().sum(1)  # [M]
        return contrastive(square.clamp_min(_LEAST).sqrt(), is_same, is_drawn, broadcast=self.broadcast)


def contrastive(distance: Tensor, is_same: Tensor, is_drawn: Tensor, *, broadcast: bool = False) -> Tensor:
    """Mean over pairs of distance^2 where both are of one class, else of max(1 - distance, 0)^2.

    Args:
        distance: [M].
        is_same, is_drawn: bool [M], whether a pair is of one class, and whether there is such a pair.
    """
    near, far = distance.square(), (_MARGIN - distance).clamp_min(0).square()
    number = is_drawn.sum().clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(is_drawn, values, 0).sum() / number

    if broadcast:
        share = mean(is_same.to(distance.dtype))
        return share * mean(near) + (1 - share) * mean(far)
    return mean(torch.where(is_same, near, far))


def at_size(label: Tensor, embedding: Tensor) -> Tensor:
    """The label's nearest pixels at the size of the map: integers [B, H, W] -> [B, h, w]."""
    rows, columns = (
        torch.arange(small, device=label.device) * large // small
        for small, large in zip(embedding.shape[2:], label.shape[1:], strict=True)
    )
    return label[:, rows[:, None], columns]


def draw_pairs(label: Tensor, source: Tensor, pairs: int, ignored: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of pixels of different sources: `pairs` of one class and three times as many of two, as far as they are
    found among a fixed number of draws. Either pixel is drawn for itself: its source, a sample of it, its place.

    Args:
        label: integers [B, h, w].
        source: int64 [B].

    Returns:
        int64 [M], twice: places in the flattened label; bool [M]: whether both are of one class; bool [M]: whether the
        pair was found. The device is not waited for.
    """
    draws, device = _DRAWS * pairs, label.device
    chance = (source[:, None] == source).sum(1).double().reciprocal()  # [B], as much for all of a source together
    samples = [torch.multinomial(chance, draws, replacement=True) for _ in range(2)]
    places = [
        sample * label[0].numel() + torch.randint(label[0].numel(), (draws,), device=device) for sample in samples
    ]
    one, other = (label.flatten()[place] for place in places)
    usable = (source[samples[0]] != source[samples[1]]) & (one != ignored) & (other != ignored)
    chosen = torch.cat([_first(usable & (one == other), pairs), _first(usable & (one != other), _APART * pairs)])
    is_drawn, chosen = chosen >= 0, chosen.clamp_min(0)
    return places[0][chosen], places[1][chosen], (one == other)[chosen], is_drawn


def _first(wanted: Tensor, count: int) -> Tensor:
    """int64 [count]: where bool [D] is true, from the start on; -1 where that is nowhere any more."""
    rank = wanted.cumsum(0)
    slot = torch.where(wanted & (rank <= count), rank - 1, count)  # the last one is for all that is left over
    found = torch.full((count + 1,), -1, device=wanted.device)
    return found.scatter_(0, slot, torch.arange(len(wanted), device=wanted.device))[:count]
