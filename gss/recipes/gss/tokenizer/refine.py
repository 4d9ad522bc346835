"""New colours for the classes that reconstruct badly, chosen by the tokenizer's own confusion.

Letters: N classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gss.data.metrics import class_iou
from gss.progress import track
from gss.recipes.gss.tokenizer.dvae import DVAE
from gss.recipes.gss.tokenizer.reconstruct import reconstruct

Measure = Callable[[DVAE, Tensor], Tensor]
Retrain = Callable[[Tensor, DVAE], DVAE]
LEVELS = (0, 64, 128, 192, 255)  # candidate colours are the grid of these
CROWDING = 0.7
NUM_CANDIDATES = 12  # tried per class on a tokenizer that is not retrained


@dataclass(frozen=True)
class Change:
    """A class that got another colour."""

    label: int
    old: tuple[int, int, int]
    new: tuple[int, int, int]


@dataclass(frozen=True)
class Round:
    """One trial: colours int64 [N+1,3], what changed against the best before, IoU float64 [N], and whether it was kept.

    Round 0 is the start.
    """

    colours: np.ndarray
    changes: tuple[Change, ...]
    iou: np.ndarray
    kept: bool

    @property
    def miou(self) -> float:
        """Mean over the classes that occur, a fraction."""
        return float(np.nanmean(self.iou))


@dataclass(frozen=True)
class Refinement:
    """The best tokenizer and colours int64 [N+1,3] found, and every round that led there."""

    dvae: DVAE
    colours: np.ndarray
    rounds: tuple[Round, ...]


def refine(
    dvae: DVAE,
    colours: np.ndarray,
    measure: Measure,
    samples: Sequence[np.ndarray],
    *,
    min_iou: float,
    max_rounds: int,
    retrain: Retrain | None = None,
    quiet: bool = True,
) -> Refinement:
    """Recolour classes below `min_iou` until nothing improves; the result is never worse than the start.

    A round recolours every such class, lets `retrain` adapt the tokenizer, and is kept if the mean IoU rose. A
    class whose new colour was not kept gets its next best candidate in the next round.

    Args:
        colours: int64 [N+1,3] in 0..255, last row = ignored pixels, which keep their colour.
        measure: confusion int64 [N,N] of a tokenizer and colours, the same in every process.
        samples: labels uint8 or uint16 [H,W] on which the candidates of a tokenizer that is not retrained are compared.
        min_iou: fraction.
        max_rounds: trials at most.
        retrain: returns a copy of the tokenizer that has learnt the given colours; without it the tokenizer stays, and
            the candidates are scored by how it reconstructs them.
        quiet: without lines of progress while they are.
    """
    confusion = measure(dvae, torch.from_numpy(colours))
    rounds = [Round(colours, (), class_iou(confusion.numpy()), kept=True)]
    best, tried = rounds[0], set[tuple[int, tuple[int, int, int]]]()
    for number in range(1, max_rounds + 1):
        bad = [int(label) for label in np.argsort(best.iou, kind="stable") if best.iou[label] < min_iou]
        trial = best.colours.copy()
        slow = retrain is None  # every candidate is tried
        for label in track(bad, f"new colours, round {number}", len(bad), "classes", quiet=quiet or not slow):
            trial[label] = _choose(dvae, trial, label, confusion, samples, tried, is_retrained=not slow)
        changes = _changes(best.colours, trial)
        if not changes:
            break
        tried |= {(change.label, change.new) for change in changes}
        adapted = retrain(torch.from_numpy(trial), dvae) if retrain else dvae
        new_confusion = measure(adapted, torch.from_numpy(trial))
        iou = class_iou(new_confusion.numpy())
        rounds.append(Round(trial, changes, iou, kept=bool(np.nanmean(iou) > best.miou)))
        if rounds[-1].kept:
            best, dvae, confusion = rounds[-1], adapted, new_confusion
    return Refinement(dvae, best.colours, tuple(rounds))


def _changes(old: np.ndarray, new: np.ndarray) -> tuple[Change, ...]:
    pairs = enumerate(zip(old.tolist(), new.tolist(), strict=True))
    return tuple(Change(label, tuple(before), tuple(after)) for label, (before, after) in pairs if before != after)


def _choose(
    dvae: DVAE,
    colours: np.ndarray,
    label: int,
    confusion: Tensor,
    samples: Sequence[np.ndarray],
    tried: set[tuple[int, tuple[int, int, int]]],
    *,
    is_retrained: bool,
) -> np.ndarray:
    """The next colour of a class; its present one where none is better.

    A tokenizer that will be retrained is no judge of colours it never saw: then distance alone decides.
    """
    candidates = [c for c in rank_candidates(colours, label, confusion) if (label, tuple(c.tolist())) not in tried]
    if is_retrained:
        return candidates[0] if candidates else colours[label]
    holding = [sample for sample in samples if (sample == label).any()]
    choices = [colours[label], *candidates[:NUM_CANDIDATES]]
    return max(choices, key=lambda colour: _trial_miou(dvae, _with(colours, label, colour), holding))


def rank_candidates(colours: np.ndarray, label: int, confusion: Tensor) -> list[np.ndarray]:
    """Free colours for a class, the most promising first.

    Ranked by the distance to the nearest other colour plus the mean distance to the colours the class is confused with,
    weighted by confusion in both directions. No candidate is nearer to a colour than `CROWDING` times the closest pair
    of the others.

    Args:
        colours: int64 [N+1,3].
        confusion: int64 [N,N].
    """
    others = np.delete(colours, label, axis=0).astype(float)
    grid = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 3)
    distance = np.linalg.norm(grid[:, None] - others, axis=2)  # [125,N]
    mixed = (confusion[label] + confusion[:, label]).double().numpy()
    weights = np.append(np.delete(mixed, label), 0.0)  # none for the ignore colour
    weights /= max(weights.sum(), 1.0)
    score = distance.min(1) + distance @ weights
    closest = np.linalg.norm(others[:, None] - others + 1e9 * np.eye(len(others))[:, :, None], axis=2).min()
    allowed = (distance.min(1) >= CROWDING * closest) & (grid != colours[label]).any(1)
    return [grid[i] for i in np.argsort(-score, kind="stable") if allowed[i]]


def _with(colours: np.ndarray, label: int, colour: np.ndarray) -> np.ndarray:
    changed = colours.copy()
    changed[label] = colour
    return changed


def _trial_miou(dvae: DVAE, colours: np.ndarray, samples: Sequence[np.ndarray]) -> float:
    confusion = reconstruct(dvae, samples, torch.from_numpy(colours), doubled=True).confusion
    return float(np.nanmean(class_iou(confusion.numpy()))) if samples else 0.0
