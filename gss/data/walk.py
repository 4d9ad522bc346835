"""The pictures in a folder: the one way in which the check, `gss prepare` and `gss predict` look through folders."""

import contextlib
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from gss.data.cases import Fault
from gss.errors import shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# Pictures, films and arrays in other formats; what else lies beside pictures, such as lists and Thumbs.db, is no data.
OTHER_FORMATS = (
    ".heic",
    ".heif",
    ".avif",
    ".gif",
    ".jfif",
    ".jpe",
    ".jp2",
    ".jxl",
    ".pbm",
    ".pgm",
    ".pnm",
    ".ppm",
    ".tga",
    ".exr",
    ".hdr",
    ".psd",
    ".svg",
    ".eps",
    ".dng",
    ".nef",
    ".cr2",
    ".cr3",
    ".arw",
    ".orf",
    ".raf",
    ".rw2",
    ".dcm",
    ".nii",
    ".mha",
    ".nrrd",
    ".npy",
    ".npz",
    ".mat",
    ".mp4",
    ".mov",
    ".avi",
    ".mkv",
)
# Folders that systems and tools put among the data; those whose names begin with a dot are hidden anyway.
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")


@dataclass
class Walk:
    """A folder of pictures with all below it, to be gone through once; then the lists say what was met besides.

    Links to folders are followed, every folder is entered once: by its own name if it has one here, else by the first
    link to it. Links to a folder that they lie in are loops and not followed. Hidden folders are no data.

    Args:
        folder: the folder.
        name: what it is called in messages.
        leave_out: real paths of folders that are not entered.
        enters: whether to look into a folder below, given as `a/b/`.
        extensions: of the files that are wanted; default: pictures.

    Attributes:
        hidden: folders that were passed over because they are hidden.
        again: links that were not followed, because what they lead to is looked at anyway.
        faults: what should have been looked at and cannot be.
        others: files that are no pictures, by extension as it is written.
    """

    folder: Path
    name: str
    leave_out: Collection[str] = ()
    enters: Callable[[str], bool] = lambda inside: True
    extensions: Collection[str] = IMAGE_SUFFIXES
    hidden: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The pictures, sorted within each folder: the folder below this one, as `a/b/` or ``, and the file's name."""
        folders = [("", os.path.realpath(self.folder))]
        links: deque[tuple[str, str]] = deque()
        entered: set[str] = set()
        while folders or links:
            inside, real = folders.pop() if folders else links.popleft()
            if real in self.leave_out:
                continue
            if real in entered:
                self.again.append(self._shown(inside))
                continue
            entered.add(real)
            below = []
            for entry in self._entries(inside, real):
                kind, where = self._kind(entry, inside), f"{inside}{entry.name}/"
                if kind == "picture":
                    yield inside, entry.name
                elif kind == "folder" and self.enters(where):
                    if is_hidden(entry.name):
                        self.hidden.append(self._shown(where))
                    elif not entry.is_symlink():
                        below.append((where, os.path.join(real, entry.name)))
                    elif _is_within(real, target := os.path.realpath(entry.path)):
                        self.again.append(self._shown(where))
                    else:
                        links.append((where, target))
            folders += reversed(below)

    def _entries(self, inside: str, real: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(real) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.faults.append(Fault(self._shown(inside), f"the folder cannot be read: {error.strerror}"))
            return []

    def _kind(self, entry: os.DirEntry[str], inside: str) -> str:
        """What to do with an entry: `picture`, `folder` or nothing."""
        try:
            if entry.is_dir():
                return "folder"
            is_file = entry.is_file()
            reason = "a link that leads nowhere" if entry.is_symlink() else "neither a file nor a folder"
        except OSError as error:  # a link to itself, or through a folder that cannot be entered
            is_file, reason = False, error.strerror or "cannot be read"
        if entry.name.startswith("."):
            return ""
        extension = os.path.splitext(entry.name)[1]
        is_picture = extension.lower() in self.extensions
        if is_picture and (is_file or entry.is_symlink()):
            return "picture"  # whoever reads it names a link that leads nowhere
        if is_file:
            self.others[extension] += 1
        elif is_picture or entry.is_symlink():
            self.faults.append(Fault(self._shown(inside + entry.name), reason))
        return ""

    def _shown(self, inside: str) -> str:
        return shown(os.path.join(self.name, inside).rstrip("/") or ".")


def remarks(walks: Sequence[Walk]) -> list[str]:
    """What to say, once, of what some walks have passed over."""
    lines = []
    if hidden := [folder for walk in walks for folder in walk.hidden]:
        names = ", ".join(sorted({os.path.basename(folder) for folder in hidden}))
        lines.append(f"hidden folders are no data: {len(hidden)} passed over ({names}), e.g. {hidden[0]}")
    if formats := [
        f"{count} *{extension} in {walk.name}"
        for walk in walks
        for extension, count in sorted(walk.others.items())
        if extension.lower() in OTHER_FORMATS
    ]:
        lines.append(f"files in formats that are not read are passed over: {', '.join(formats)}")
    if again := [link for walk in walks for link in walk.again]:
        lines.append(f"links to folders that are looked at anyway: {len(again)} passed over, e.g. {again[0]}")
    return lines


def is_picture(path: PurePath, suffix: str) -> bool:
    """Whether a file in a folder of pictures is an image or a label by its path below the folder."""
    hidden = any(map(is_hidden, path.parts[:-1])) or path.name.startswith(".")
    return path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith(suffix) and not hidden


def without_extension(name: str) -> str:
    """A file name without `.png` and the like; `frame.0001` has none."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in IMAGE_SUFFIXES else name


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), in which names that look alike are equal: macOS decomposes them."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def on_disk(root: Path, folder: str) -> str:
    """A folder below `root` as the disk spells it, where only the Unicode form differs; else as it is."""
    path = root
    for part in Path(folder).parts:
        if not os.path.exists(path / part):
            with contextlib.suppress(OSError):
                part = next((name for name in sorted(os.listdir(path)) if composed(name) == composed(part)), part)
        path /= part
    return folder if path == root / folder else os.path.relpath(path, root)


def is_hidden(folder: str) -> bool:
    """Whether a folder is no data by its name."""
    return folder.startswith(".") or folder in _SYSTEM_FOLDERS


def _is_within(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder
