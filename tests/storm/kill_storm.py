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
import atexit
import contextlib
import ctypes
import json
import math
import mmap
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "train"), str(ROOT / "tests" / "workflow")]
os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path[:3]), "PYTHONUNBUFFERED": "1"}

PLACES = ("start-up", "training", "journal", "write", "fsync", "rename")  # the order is that of a byte below
SELF_INFLICTED = PLACES[2:]
PROCESSES = ("launcher", "torchrun", "worker 0", "worker 1")
SAVE_EVERY = 2
LIFE_SECONDS = 900  # no life lasts longer
TIMED = ("train/img_per_s", "train/data_wait")


class StormError(Exception):
    """The training did not keep its promise, or the storm had to end before."""


# ------------------------------------------------------------------------------------------------ what is trained


class Toy:
    """The latent prior of the toy experiment."""

    name, steps, stage = "toy latent prior", 150, "latent_prior"

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        if not self.project.is_dir():
            self._prepare()
        os.environ.pop("GSS_DATA", None)

    def _prepare(self) -> None:
        from project import Project

        print("preparing: data, palette and tokenizer of the toy (some minutes)", flush=True)
        new = self.project.with_name("project.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        project = Project(new)
        done = project.snakemake("--cores", "2", "results/toy/tokenizer.safetensors")
        if done.returncode:
            raise StormError(done.stdout)
        project.configure(
            "toy",
            latent_prior__milestones=[self.steps],
            posterior__start_step=self.steps,
            latent_prior__training__batch_size=4,
            run__log_every=1,
            run__save_every=SAVE_EVERY,
        )
        new.rename(self.project)

    def fresh(self, folder: Path) -> None:
        """A results folder in which nothing has been trained."""
        shutil.copytree(self.project / "results", folder, ignore=shutil.ignore_patterns("work", "logs"))

    def work(self, folder: Path) -> Path:
        return folder / "toy" / "work" / self.stage

    def command(self, folder: Path) -> list[str]:
        return ["train", "latent-prior", "toy", "--results", str(folder)]

    def live(self, folder: Path) -> int:
        """Train in this process, without a process for the loader: that one would live for seconds after a kill."""
        from gss.cli import main

        os.chdir(self.project)
        return main([*self.command(folder), "run.workers=0"])

    def launch(self, folder: Path) -> list[str]:
        """The same with two processes; to be run in the project."""
        return [
            sys.executable,
            "-m",
            "gss",
            "launch",
            "--nproc",
            "2",
            "--gpus",
            "0",
            "--cpus",
            "2",
            "--work",
            str(self.work(folder)),
            "--",
            *self.command(folder),
        ]

    def model(self, folder: Path) -> Any:
        from gss.modelfile import load_model

        return load_model(folder / "toy" / "gss_ff.pth").tensors


class Tiny:
    """The little network of the training's tests."""

    name, steps = "tiny network", 60
    options = json.dumps(
        {
            "steps": steps,
            "save_every": SAVE_EVERY,
            "validate_every": 3 * SAVE_EVERY,
            "keep": "best",
            "delay": 0.02,
            "ema": 0.9,
            "learner": {"norm": True, "dropout": 0.2},
        }
    )

    def __init__(self, folder: Path) -> None:
        self.project = folder

    def fresh(self, folder: Path) -> None:
        folder.mkdir(parents=True)

    def work(self, folder: Path) -> Path:
        return folder

    def live(self, folder: Path) -> int:
        import tiny_learner

        sys.argv[1:] = [str(folder), self.options]
        tiny_learner.main()
        return 0

    def launch(self, folder: Path) -> list[str]:
        program = (
            "import sys; from pathlib import Path; from gss.cluster.launch import launch; "
            "sys.exit(launch(2, sys.argv[1:], work=Path(sys.argv[1]), module='tiny_learner'))"
        )
        return [sys.executable, "-c", program, str(folder), self.options]

    def model(self, folder: Path) -> Any:
        import torch

        return torch.load(folder / "final.pt", weights_only=True)


Subject = Toy | Tiny


def outcome(subject: Subject, folder: Path) -> dict[str, Any]:
    """What must be the same at the end of every training."""
    import torch

    from gss.results.journal import read_journal
    from gss.train.checkpoint import CheckpointFolder

    checkpoints = CheckpointFolder(subject.work(folder) / "checkpoints")
    last, reports = checkpoints.find_latest()
    if last is None or last.step != subject.steps or reports:
        raise StormError(f"the last checkpoint is {last}: {reports}")
    if rubbish := [*checkpoints.path.glob(".*"), *checkpoints.path.glob("*.damaged")]:
        raise StormError(f"left over: {rubbish}")
    lines = [event for event in read_journal(subject.work(folder) / "journal.jsonl") if "m" in event]
    steps = [line["step"] for line in lines if "train/loss" in line["m"]]
    if steps != list(range(1, subject.steps + 1)):
        raise StormError(f"steps in the journal: {steps}")
    return {
        "weights": subject.model(folder),
        "last checkpoint": checkpoints.load(last.step, map_location=torch.device("cpu")),
        "journal": [{name: value for name, value in line["m"].items() if name not in TIMED} for line in lines],
    }


def differences(one: Any, two: Any, place: str = "") -> Iterator[str]:
    """Where two outcomes are not equal to the last bit."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        for key in one:
            yield from differences(one[key], two[key], f"{place}/{key}")
    elif isinstance(one, list | tuple) and type(one) is type(two) and len(one) == len(two):
        for number, (mine, theirs) in enumerate(zip(one, two, strict=True)):
            yield from differences(mine, theirs, f"{place}/{number}")
    elif not (one.equal(two) if hasattr(one, "equal") else one == two):
        yield place


# ------------------------------------------------------------------------------------------------ one life


@dataclass(frozen=True)
class Doom:
    """How a life shall end: after some seconds by the parent's hand, or at the n-th call in a place by its own."""

    seconds: float | None = None
    trained: bool = False  # the seconds begin with the first step
    place: str | None = None
    call: int = 0
    part: float = 0.5  # of the bytes that are written before; the call itself is made when it is above one half

    def is_due(self, age: float, start: float) -> bool:
        """Whether the parent has to kill a life of this age, which began to train at `start`, inf: not yet."""
        return self.seconds is not None and age - (start if self.trained else 0) >= self.seconds


@dataclass
class Life:
    """What one life came to."""

    code: int
    place: str
    first: int | None  # step it began with
    last: int | None  # last step it finished
    out: str
    start: float  # seconds until it began to train; inf: it never did


class Watched:
    """In the child: notes where each thread is, for the parent to see, and keeps an appointment with death."""

    def __init__(self, seen: mmap.mmap, doom: Doom) -> None:
        self._seen, self._doom = seen, doom
        self._calls: Counter[str] = Counter()

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[bool]:
        """Be at a place; gives whether this is the end. If nobody acts on it before, it comes after the call."""
        thread = int(threading.current_thread() is not threading.main_thread())
        before = self._seen[thread]
        self._seen[thread] = PLACES.index(place)
        self._calls[place] += 1
        dies = place == self._doom.place and self._calls[place] == self._doom.call
        if dies and place in ("fsync", "rename") and self._doom.part < 0.5:
            self.die()
        yield dies
        if dies:
            self.die()
        self._seen[thread] = before

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def some(self, content: Any) -> Any:
        """The bytes that are written before death."""
        content = memoryview(content).cast("B")
        return content[: int(len(content) * self._doom.part)]

    def install(self) -> None:
        """Look over the shoulder of what writes files, of the journal, and of the training."""
        import gss.train.loop as loop
        from gss.results.journal import Journal

        fsync, replace, opened, append, seed = os.fsync, os.replace, Path.open, Journal._append, loop.seed_step
        watched = self

        class File:
            def __init__(self, file: Any) -> None:
                self._file = file

            def __getattr__(self, name: str) -> Any:
                return getattr(self._file, name)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                self._file.close()

            def write(self, content: Any) -> int:
                with watched.at("write") as dies:
                    self._file.write(watched.some(content) if dies else content)
                    if dies:
                        self._file.flush()
                return len(content)

        def watched_open(path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
            file = opened(path, mode, *arguments, **keywords)
            return File(file) if mode == "xb" else file

        def journal_append(journal: Journal, event: Any) -> None:
            with watched.at("journal") as dies:
                if dies:
                    line = (json.dumps(event, default=str) + "\n").encode()
                    journal._file.write(watched.some(line))
                    journal._file.flush()
                else:
                    append(journal, event)

        def first_step(*arguments: Any) -> None:
            watched._seen[0] = PLACES.index("training")
            seed(*arguments)

        def watched_call(place: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def made(*arguments: Any, **keywords: Any) -> Any:
                with watched.at(place):
                    return call(*arguments, **keywords)

            return made

        atexit.register(lambda: print("calls", json.dumps(watched._calls), flush=True))
        os.fsync, os.replace = watched_call("fsync", fsync), watched_call("rename", replace)
        Path.open = watched_open  # type: ignore[method-assign,assignment]
        Journal._append, loop.seed_step = journal_append, first_step  # type: ignore[method-assign]


def forked_life(subject: Subject, folder: Path, doom: Doom) -> Life:
    """Train in a child until its end, one way or the other."""
    seen = mmap.mmap(-1, 2)
    log = folder.with_suffix(".log")
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # with the parent
        if os.getppid() != parent:
            os._exit(1)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        Watched(seen, doom).install()
        try:
            code = subject.live(folder)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]  # an interpreter's end, without the parent's open frames
        atexit._run_exitfuncs()
        os._exit(code)
    began, start, killed = time.monotonic(), math.inf, False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        age = time.monotonic() - began
        if age > LIFE_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise StormError(f"a life of more than {LIFE_SECONDS} s\n{log.read_text(errors='replace')[-3000:]}")
        if seen[0] == PLACES.index("training") and start == math.inf:
            start = age
        if doom.is_due(age, start) and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.002)
    place = PLACES[seen[1]] if seen[1] else PLACES[seen[0]]
    return _life(os.waitstatus_to_exitcode(status), place, log, start)


def _life(code: int, place: str, log: Path, start: float) -> Life:
    out = log.read_text(errors="replace")
    began = re.search(r"resumed from step (\d+)|(fresh start)", out)
    steps = re.findall(r"^step (\d+)/", out, flags=re.MULTILINE)
    first = None if began is None else int(began[1] or 0)
    return Life(code, place, first, int(steps[-1]) if steps else first, out, start)


def launched_life(subject: Subject, folder: Path, doom: Doom) -> Life:
    """Train under `gss launch` with two processes, and kill one of the four."""
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        launcher = subprocess.Popen(subject.launch(folder), cwd=subject.project, stdout=output, stderr=output)
    began, start, killed, family = time.monotonic(), math.inf, False, {"launcher": launcher.pid}
    while launcher.poll() is None:
        time.sleep(0.02)
        age = time.monotonic() - began
        if age > LIFE_SECONDS:
            launcher.kill()
            raise StormError(f"a life of more than {LIFE_SECONDS} s\n{log.read_text()[-3000:]}")
        if start == math.inf and "\nstep " in log.read_text(errors="replace"):
            start = age
        if doom.is_due(age, start) and not killed:
            family |= _family(launcher.pid)
            if doom.place in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(family[doom.place], signal.SIGKILL)
                    killed = True
    for pid in family.values():  # the orphans of a killed parent end by themselves
        while _alive(pid):
            if time.monotonic() - began > LIFE_SECONDS:
                raise StormError(f"process {pid} lives on")
            time.sleep(0.02)
    code = launcher.returncode
    if killed and code == 0:
        raise StormError(f"{doom.place} was killed, and the launch says 0")
    return _life(-signal.SIGKILL if killed else code, "start-up" if start == math.inf else "training", log, start)


def _family(launcher: int) -> dict[str, int]:
    """Pids of torchrun and of its workers."""
    found: dict[str, int] = {}
    for torchrun in _children(launcher):
        if b"gss.cluster.torchrun" in _proc(torchrun, "cmdline"):
            found["torchrun"] = torchrun
            for worker in _children(torchrun):
                if rank := re.search(rb"\0RANK=(\d)", _proc(worker, "environ")):
                    found[f"worker {int(rank[1])}"] = worker
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _read(task).split()]


def _proc(pid: int, name: str) -> bytes:
    return _read(Path(f"/proc/{pid}/{name}"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _alive(pid: int) -> bool:
    return _proc(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])


# ------------------------------------------------------------------------------------------------ many lives


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
    row("trainings brought to their end", lambda tally: tally.trainings)
    row("of these with the same bits in weights, optimizer and journal", lambda tally: tally.trainings)
    row("steps done again", lambda tally: tally.repeated)
    row("... most in one life", lambda tally: tally.most_repeated)
    row("interventions by hand", lambda tally: 0)
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
