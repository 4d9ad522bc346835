"""Kills a training over and over, starts it again with the same command, and compares its end with an undisturbed one.

    python tests/storm/kill_storm.py                                  # a quarter of an hour on two cores
    python tests/storm/kill_storm.py --kills 20 --launch-kills 4      # minutes

The training is the toy's latent prior: its data, tokenizer and network, prepared by Snakemake once per folder, with
smaller batches and a checkpoint every second step. Two parts:

1. One process, forked from a parent that has imported everything. It is killed (SIGKILL) by the parent at a random
   moment, or kills itself at a random call inside a write, fsync or rename of a checkpoint, or in the middle of a line
   of the journal; after some bytes, before or after the call, at random.
2. `gss launch --nproc 2`, of which the launcher, torchrun or one of the workers is killed at a random moment.

When a training comes to its end, its model, its last checkpoint and its journal are compared, to the last bit, and the
next one begins, until the kills are used up.
"""

import argparse
import json
import math
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lives import PLACES, Doom, Life, forked_life, launched_life
from subjects import SAVE_EVERY, StormError, Subject, Tiny, Toy, differences, outcome

SELF_INFLICTED = PLACES[2:]
PROCESSES = ("launcher", "torchrun", "worker 0", "worker 1")


@dataclass
class Tally:
    """What the storm did."""

    kills: int = 0
    lives: int = 0
    trainings: int = 0
    repeated: int = 0
    most_repeated: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def storm(subject: Subject, folder: Path, kills: int, rng: random.Random, part: str, *, seconds: float) -> Tally:
    """Train, kill and compare until the kills are used up and the last training has come to its end.

    Args:
        part: `forked` or `launched`.
        seconds: longest time for all of it.

    Raises:
        StormError: a training ended differently or not at all.
    """
    live, draw, hit = PARTS[part]
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    subject.fresh(folder / "undisturbed")
    whole = live(subject, folder / "undisturbed", Doom())
    if whole.code:
        raise StormError(f"the undisturbed training ended with {whole.code}\n{whole.out[-3000:]}")
    expected, lasted = outcome(subject, folder / "undisturbed"), time.monotonic() - began
    step = (lasted - whole.start) / subject.steps
    print(
        f"{part}: undisturbed: first step after {whole.start:.1f} s, {subject.steps} steps in {lasted:.0f} s",
        flush=True,
    )

    tally, said = Tally(), 0.0
    while tally.kills < kills:
        tally.trainings += 1
        place = folder / f"training_{tally.trainings}"
        subject.fresh(place)
        reached = 0
        while True:
            age = time.monotonic() - began
            if age > seconds or tally.lives > 3 * kills + 50:
                raise StormError(f"no end in sight after {tally.lives} lives and {age:.0f} s")
            doom = draw(rng, whole, step) if tally.kills < kills else Doom()
            life = live(subject, place, doom)
            tally.lives += 1
            if "cannot be used" in life.out or life.code not in (0, -signal.SIGKILL):
                raise StormError(f"life {tally.lives} ended with {life.code} after {doom}\n{life.out[-3000:]}")
            if life.first is not None:
                tally.repeated += reached - life.first
                tally.most_repeated = max(tally.most_repeated, reached - life.first)
                reached = life.last or life.first
            if life.code == 0:
                break
            tally.kills += 1
            tally.hits[hit(doom, life)] += 1
            if time.monotonic() - said > 10:
                said = time.monotonic()
                left = (said - began - lasted) / tally.kills * (kills - tally.kills) + lasted / 2
                print(
                    f"{part}: kills {tally.kills}/{kills}  lives {tally.lives}  training {tally.trainings}: step "
                    f"{reached}/{subject.steps}  repeated {tally.repeated}  ETA {math.ceil(left / 60)} min",
                    flush=True,
                )
        if different := list(differences(expected, outcome(subject, place))):
            raise StormError(f"training {tally.trainings} ended differently: {different[:10]}, {len(different)} in all")
        shutil.rmtree(place)
    tally.seconds = time.monotonic() - began
    return tally


def draw_forked(rng: random.Random, whole: Life, step: float) -> Doom:
    """Half the ends at a random moment, half at a random call; so late that some lives gain steps."""
    if rng.random() < 0.5:
        return Doom(rng.uniform(0, whole.start + 6 * SAVE_EVERY * step))
    place = rng.choice(SELF_INFLICTED)
    calls = json.loads(re.findall(r"^calls (.*)", whole.out, flags=re.MULTILINE)[-1])
    saves = int(calls["rename"] / 2)  # a file and the list
    call = rng.randint(1, max(3, round(3 * calls[place] / saves)))
    return Doom(place=place, call=call, part=rng.random())


def draw_launched(rng: random.Random, whole: Life, step: float) -> Doom:
    """A random one of the four processes, at a random moment: a third of them before the training begins."""
    if rng.random() < 1 / 3:
        return Doom(rng.uniform(0, whole.start), place=rng.choice(PROCESSES))
    return Doom(rng.uniform(0, 8 * SAVE_EVERY * step), trained=True, place=rng.choice(PROCESSES))


PARTS = {
    "forked": (forked_life, draw_forked, lambda doom, life: life.place),
    "launched": (launched_life, draw_launched, lambda doom, life: f"{doom.place}, {life.place}"),
}


def table(subject: Subject, seed: int, tallies: dict[str, Tally]) -> str:
    """Both parts as Markdown."""
    lines = [
        f"{subject.name}, {subject.steps} steps, a checkpoint every {SAVE_EVERY}, seed {seed}",
        "",
        f"| | {' | '.join(tallies)} |",
        f"|---|{'---:|' * len(tallies)}",
    ]

    def row(name: str, value: Callable[[Tally], object]) -> None:
        lines.append(f"| {name} | {' | '.join(str(value(tally)) for tally in tallies.values())} |")

    row("kills (SIGKILL)", lambda tally: tally.kills)
    for hit in sorted({hit for tally in tallies.values() for hit in tally.hits}):
        row(f"... {hit}", lambda tally, hit=hit: tally.hits[hit] or "")  # type: ignore[misc]
    row("lives", lambda tally: tally.lives)
    row("trainings brought to their end, with the same bits", lambda tally: tally.trainings)
    row("steps done again", lambda tally: tally.repeated)
    row("... most in one life", lambda tally: tally.most_repeated)
    row("minutes", lambda tally: f"{tally.seconds / 60:.1f}")
    return "\n".join(lines)


def import_all() -> None:
    """Import what every child needs; some of it comes only with the first use of an optimizer."""
    import torch

    import gss.recipes.gss.stages.latent_prior

    del gss.recipes.gss.stages.latent_prior
    torch.set_num_threads(1)
    weight = torch.ones(1, requires_grad=True)
    weight.grad = torch.ones(1)
    torch.optim.AdamW([weight]).step()


def main() -> int:
    grammar = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    grammar.add_argument("--kills", type=int, default=200, help="of the single process")
    grammar.add_argument("--launch-kills", type=int, default=20, help="of launches with two processes")
    grammar.add_argument("--subject", choices=("toy", "tiny"), default="toy", help="what is trained")
    grammar.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "gss_storm")
    grammar.add_argument("--seed", type=int, default=random.randrange(2**32))
    grammar.add_argument("--minutes", type=float, default=60, help="longest time")
    given = grammar.parse_args()
    print(f"seed {given.seed}, folder {given.folder}", flush=True)
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        kind: type[Subject] = {"toy": Toy, "tiny": Tiny}[given.subject]
        subject = kind(given.folder.resolve())
        import_all()
        tallies = {}
        for part, kills in (("forked", given.kills), ("launched", given.launch_kills)):
            if kills:
                tallies[part] = storm(
                    subject,
                    subject.project / "storm" / part,
                    kills,
                    random.Random(given.seed),
                    part,
                    seconds=60 * given.minutes,
                )
    except StormError as error:
        print(f"FAILED: {error}", flush=True)
        return 1
    print(table(subject, given.seed, tallies), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
