"""What `gss predict` does: predictions of many images as files.

Letters: N classes; H, W size of an image.
"""

import contextlib
import glob
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from gss.data.classes import ids_dtype
from gss.data.images import nearly_black, read_image, write_png
from gss.data.loader import read_ahead
from gss.data.walk import Walk, remarks, without_extension
from gss.errors import DataError, GssError, is_no_memory, shown
from gss.evaluate.inference import as_grey
from gss.files import remove, table_text, write_atomic, write_text
from gss.progress import Progress
from gss.use.given import refuse_models
from gss.use.predictor import Predictor, load

SCORES, UNCERTAINTY = "_scores.npz", "_uncertainty.png"
ENDINGS = (".png", "_colour.png", "_overlay.png", UNCERTAINTY, SCORES)
LONGEST = 255  # bytes of a file name
WRITE_BEHIND = 3  # images in memory after the model has them


@dataclass(frozen=True)
class Job:
    """An image, and the first part of the names of what is written of it."""

    image: Path
    stem: Path

    def file(self, ending: str) -> Path:
        return self.stem.with_name(self.stem.name + ending)


def predict_files(
    model: Path,
    inputs: Sequence[str],
    out: Path,
    *,
    device: str | None = None,
    scores: bool = False,
    uncertainty: bool = False,
) -> int:
    """Predict images and write `<name>.png` (ids), `<name>_colour.png`, `<name>_overlay.png` and `classes.csv`.

    An image that cannot be read or does not fit into memory is named on stderr, and the others go on. What an earlier
    run left under the same names is taken away first: no file is of another image or model than those beside it.

    Args:
        inputs: images, folders (searched recursively) or patterns, see `find_jobs`.
        device: None: the GPU where there is one.
        scores: write `<name>_scores.npz`, too: `probabilities` uint8 [N, H, W] in 255ths.
        uncertainty: write `<name>_uncertainty.png`, too: grey, uint8 [H, W], in 255ths, see `Predictor.uncertainty`.

    Returns:
        The number of images that were not predicted.

    Raises:
        GssError: before anything is written: no input, a second model, the outputs of two would have one name, or `out`
            holds files that are no predictions of these classes; later: a file cannot be written.
    """
    left_out = {ending for ending, is_asked in ((SCORES, scores), (UNCERTAINTY, uncertainty)) if not is_asked}
    endings = [ending for ending in ENDINGS if ending not in left_out]
    refuse_models(inputs)
    jobs = find_jobs(inputs, out, endings)
    if any(Path(name).is_dir() and Path(name).resolve() == out.resolve() for name in inputs):
        raise GssError(
            "the next call would take the predictions for images", where=out, todo=f"choose another -o: {out}/predicted"
        )
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say(f"note: {message}")
        predictor = load(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _take_folder(out, [job.file(ending) for job in jobs for ending in endings], predictor)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it does not name the files it complains of
    progress = Progress("predict", len(jobs), "img")
    failed, told = 0, set[str]()

    def fail(job: Job, reason: str) -> None:
        nonlocal failed
        failed += 1
        _take_away(job)
        _say(f"failed: {job.image}: {reason}")

    def finish(job: Job, written: Future[None]) -> None:
        with _memory_told(partial(fail, job)):
            written.result()

    def read(job: Job) -> np.ndarray:
        return read_image(job.image, predictor.orientation)

    with ThreadPoolExecutor(WRITE_BEHIND, "write") as writer, read_ahead(read, jobs) as images:
        writing: deque[tuple[Job, Future[None]]] = deque()
        for done, (job, reading) in enumerate(images, 1):
            with _memory_told(partial(fail, job)):
                image = reading.result()  # [H, W, 3]
                for kind, message in (("size", predictor.cut(*image.shape[:2])), ("light", nearly_black(image))):
                    if message and kind not in told:
                        told.add(kind)
                        _say(f"note, for this and all images like it: {job.image}: {message}")
                shape = (len(predictor.classes), *image.shape[:2])
                shares = torch.empty(shape, dtype=torch.uint8, device=predictor.device) if scores else None
                certainty = torch.empty(2, *image.shape[:2], device=predictor.device) if uncertainty else None
                ids = predictor.launch(image, probabilities=shares, certainty=certainty)
                writing.append((job, writer.submit(_write, job, image, ids, shares, certainty, predictor.colours)))
            while len(writing) >= WRITE_BEHIND:
                finish(*writing.popleft())
            progress.show(done)
        for pending in writing:
            finish(*pending)
    print(f"{len(jobs) - failed} of {len(jobs)} images predicted, see {out}")
    return failed


@contextlib.contextmanager
def _memory_told(fail: Callable[[str], None]) -> Iterator[None]:
    """Call `fail` with the reason when an image cannot be read or does not fit into memory."""
    try:
        yield
    except DataError as error:
        fail(error.what)
    except (MemoryError, RuntimeError) as error:
        if not is_no_memory(error):
            raise
        fail("it does not fit into memory: make it smaller, or choose another --device")


def find_jobs(inputs: Sequence[str], out: Path, endings: Sequence[str]) -> list[Job]:
    """The images to predict, none twice.

    Args:
        inputs: files; folders, whose images keep their path below the folder; patterns such as `photos/**/*.jpg`,
            whose images keep their path below the part before the first `*`, `?` or `[`. Of folders and patterns the
            images are taken, as `gss.data.walk` finds them, save those below `out`; stderr tells what is passed over.
        out: where to.
        endings: of the files written of each image.

    Raises:
        GssError: an input is not there, holds no image or a folder that cannot be read, or a file would be written
            twice or over an input, or have too long a name.
    """
    found: dict[Path, Job] = {}
    walks: list[Walk] = []
    for text in inputs:
        matches = list(_images(text, out.resolve(), walks))
        if faults := [fault for walk in walks for fault in walk.faults]:
            raise GssError("; ".join(faults), where=text, todo="mend this, or name what is to be predicted")
        if not matches:
            what = "; ".join(("no image found", *remarks(walks)))
            raise GssError(what, where=text, todo="name an image, a folder of images or a pattern")
        for image, relative in matches:
            job = Job(image, out / relative.with_name(without_extension(relative.name)))
            other = found.setdefault(image.resolve(), job)
            if other.stem != job.stem:
                raise GssError(f"{image} is given twice, as {other.stem} and as {job.stem}", todo="name it once")
    for remark in remarks(walks):
        _say(f"note: {remark}")
    jobs = list(found.values())
    written: dict[Path, Job] = {}
    for job in jobs:
        for ending in endings:
            target = job.file(ending)
            if len(os.fsencode(target.name)) > LONGEST:
                what = f"the prediction of {job.image} would have a name of more than {LONGEST} bytes"
                raise GssError(what, where=target, todo="rename the image")
            if (other := written.setdefault(target, job)) is not job:
                raise GssError(
                    f"{other.image} and {job.image} would write the same file",
                    where=target,
                    todo="rename one of them, or predict them into two folders",
                )
            if target.resolve() in found:
                raise GssError(
                    f"the prediction of {job.image} would overwrite an input", where=target, todo="choose another -o"
                )
    return jobs


def _images(text: str, out: Path, walks: list[Walk]) -> Iterator[tuple[Path, Path]]:
    """Images that an argument stands for, and what their outputs are called; the folder gone through joins `walks`."""
    path = Path(text)
    pattern: tuple[str, ...] = ()
    if not os.path.isdir(path):
        if os.path.lexists(path):
            yield path, Path(path.name)
            return
        plain = next((number for number, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts))
        path, pattern = Path(*path.parts[:plain]), path.parts[plain:]
        if not pattern or not os.path.isdir(path):
            return
    own = {str(out)} - {os.path.realpath(path)}  # earlier predictions are no photographs
    walk = Walk(path, str(path), own, lambda inside: _leads_to(inside.rstrip("/").split("/"), pattern))
    walks.append(walk)
    for relative in sorted(Path(inside + name) for inside, name in walk):
        if _is_within(relative.parts, pattern):
            yield path / relative, relative


def _leads_to(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether something that the pattern stands for may be in a folder, or the folder is within it."""
    if not folder or not pattern or pattern[0] == "**":
        return True
    return fnmatchcase(folder[0], pattern[0]) and _leads_to(folder[1:], pattern[1:])


def _is_within(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the pattern stands for a path or a folder above it; `**` stands for any number of folders."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_is_within(path[begun:], pattern[1:]) for begun in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _is_within(path[1:], pattern[1:])


def _write(
    job: Job,
    image: np.ndarray,
    prediction: Tensor,
    shares: Tensor | None,
    certainty: Tensor | None,
    colours: np.ndarray,
) -> None:
    """Write the files of an image; that of the ids is the last one, so that with it all are there."""
    _take_away(job)
    ids = prediction.cpu().numpy()  # waits for the device, here and not where the next image is launched
    ids = ids.astype(ids_dtype(len(colours)), copy=False)
    colour = colours[ids]  # [H, W, 3]
    if shares is not None:
        write_atomic(job.file(SCORES), partial(np.savez_compressed, probabilities=shares.cpu().numpy()))
    if certainty is not None:
        write_png(job.file(UNCERTAINTY), as_grey(certainty[1]))
    write_png(job.file("_overlay.png"), cv2.addWeighted(image, 0.5, colour, 0.5, 0))
    write_png(job.file("_colour.png"), colour)
    write_png(job.file(".png"), ids)


def _take_away(job: Job) -> None:
    """Remove what an earlier run left of an image, that of the ids first."""
    remove(*map(job.file, ENDINGS))


def _take_folder(out: Path, targets: Sequence[Path], predictor: Predictor) -> None:
    """Write `classes.csv`, which says what the ids in a folder mean, and that the files there are predictions.

    Raises:
        GssError: it says something else, or a target is there without it: that file is not ours to replace.
    """
    classes = enumerate(zip(predictor.classes, predictor.colours.tolist(), strict=True))
    rows = ((index, name, *colour) for index, (name, colour) in classes)
    path, content = out / "classes.csv", table_text(("index", "name", "r", "g", "b"), rows)
    if not path.is_file():
        if stranger := next((target for target in targets if target.exists()), None):
            raise GssError("a file is there that no earlier prediction wrote", where=stranger, todo="choose another -o")
    elif path.read_bytes() != content.encode():
        raise GssError(
            "the folder has a table of other classes or colours: what lies there would change its meaning",
            where=path,
            todo="choose another -o",
        )
    write_text(path, content)


def _say(line: str) -> None:
    """A line on stderr, in place of a progress bar that stands there."""
    line = shown(line)
    print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
