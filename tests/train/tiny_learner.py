"""A learner of the tests' own, and a program that trains it: `python -m tiny_learner FOLDER '{"json": "options"}'`."""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gss.collector import spare_modules
from gss.evaluate.measure import measure
from gss.nets.losses import sum_of
from gss.results.journal import Journal
from gss.train.distributed import World, worker
from gss.train.loop import LoopSettings, TrainResult, train

FEATURES, CLASSES, BATCH = 5, 3, 8
ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
SETTINGS = {"steps": 30, "lr": 0.05, "warmup_steps": 4, "log_every": 1, "save_every": 5, "seed": 3}


class TinyLearner(nn.Module):
    """Two terms over different numbers of elements, by group if need be; dropout and batch norm when asked.

    Args:
        poison: the step whose scores are no numbers.
        overflow: steps whose images are too large for float16, in the last process alone.
    """

    def __init__(
        self,
        *,
        dropout: float = 0.0,
        norm: bool = False,
        width: int = 16,
        poison: int | None = None,
        overflow: Sequence[int] = (),
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.terms, self.has_idle = {"class": 1.0, "square": 0.5}, False
        self.saved = nn.Sequential(
            nn.Linear(FEATURES, width),
            nn.BatchNorm1d(width) if norm else nn.Identity(),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, CLASSES),
        )
        self.poison, self.overflow = poison, overflow

    def counts(self, batch: dict[str, Tensor]) -> Tensor:
        label, groups = batch["label"], batch.get("groups")
        return torch.stack([sum_of(each, groups) for each in (label >= 0, torch.ones_like(label))]).double()

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        is_last = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
        image = batch["image"] * 1e30 if step in self.overflow and is_last else batch["image"]
        scores = self.saved(image)  # [B, CLASSES]
        if step == self.poison:
            scores = scores / 0
        valid = batch["label"] >= 0
        cross = nn.functional.cross_entropy(scores, batch["label"], ignore_index=-1, reduction="none")
        right = ((scores.argmax(1) == batch["label"]) & valid).sum()
        sums = [sum_of(each, batch.get("groups")) for each in (cross, scores.square())]
        return torch.stack(sums), {"accuracy": (right, valid.sum())}


def sample(seed: int, position: int) -> tuple[Tensor, int]:
    """A sample as a function of its position; a third of the labels is -1, to be ignored."""
    digest = hashlib.sha256(f"{seed}/{position}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
    return torch.randn(FEATURES, generator=generator), digest[4] % 4 % CLASSES - (digest[5] % 3 == 0) * 10


def make_batches(
    world: World = ALONE,
    *,
    batch_size: int = BATCH,
    accumulation: int = 1,
    delay: float = 0.0,
    seen: list[int] | None = None,
):
    """Batches of this process, of two sources in turns; positions are noted in `seen`."""

    def batches(start: int) -> Iterator[list[dict[str, Tensor]]]:
        step, share = start, batch_size // (world.size * accumulation)
        while True:
            time.sleep(delay)
            first = step * batch_size + world.rank * share * accumulation
            step += 1
            micro = []
            for number in range(accumulation):
                positions = [first + number * share + i for i in range(share)]
                if seen is not None:
                    seen.extend(positions)
                images, labels = zip(*(sample(11, position) for position in positions), strict=True)
                label = torch.tensor(labels).clamp(min=-1)
                micro.append({"image": torch.stack(images), "label": label, "source": torch.tensor(positions) % 2})
            yield micro

    return batches


def validation(world: World, folder: Path, *, images: int = 12, delay: float = 0.0):
    """Scores of samples of other positions, one by one, measured as images are; `validating` lies in the folder then.

    It draws random numbers, and freezes the module it was given.
    """

    def read(position: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = sample(12, position)
        return image[None].numpy(), np.array([255 if label < 0 else label], np.uint8)

    def validate(module: nn.Module, look) -> dict[str, float]:
        assert not module.requires_grad_(False).training

        def segment(image: np.ndarray, label: np.ndarray) -> Tensor:
            time.sleep(delay)
            torch.rand(7)
            return module(torch.from_numpy(image)).argmax(1)

        (folder / "validating").touch()
        with torch.inference_mode():
            found = measure(segment, range(images), CLASSES, world, read=read, each=lambda *_: look(), title="val")
        (folder / "validating").unlink(missing_ok=True)
        assert found.scores.mIoU is not None
        return {"val/mIoU": found.scores.mIoU, "val/aAcc": found.scores.aAcc or 0.0}

    return validate


def run(
    folder: Path,
    world: World = ALONE,
    *,
    until: int | None = None,
    accumulation: int = 1,
    batch_size: int = BATCH,
    delay: float = 0.0,
    learner: dict | None = None,
    validate=None,
    validation_options: dict | None = None,
    **settings,
) -> TrainResult:
    """Train a tiny learner in a folder; it validates with `validate_every` alone.

    When finished it leaves `final.pt`, the other processes `final_RANK.pt`.
    """
    seen: list[int] = []
    journal = Journal(folder / "journal.jsonl", {"stage": "tiny"}) if world.is_main else None
    batches = make_batches(world, batch_size=batch_size, accumulation=accumulation, delay=delay, seen=seen)
    with journal or contextlib.nullcontext():
        result = train(
            TinyLearner(**(learner or {})),
            batches,
            LoopSettings(**{**SETTINGS, **settings}),
            work=folder,
            journal=journal,
            world=world,
            until=until,
            validate=validate or validation(world, folder, **(validation_options or {})),
        )
    (folder / f"seen_{world.rank}.json").write_text(json.dumps(seen))
    if result.finished:
        torch.save(result.exported.state_dict(), folder / ("final.pt" if world.is_main else f"final_{world.rank}.pt"))
    return result


def main() -> None:
    spare_modules()
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    with worker(folder) as world:
        torch.set_num_threads(1)
        run(folder, world, **options)


if __name__ == "__main__":
    main()
