"""One picture per image: what went in, what came out, and where it is wrong.

Letters: N classes; H, W size of the image. Drawn with Pillow alone: matplotlib would read `$` in a class
name as a formula. Torch is loaded by `panel` alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gss.data.metrics import confusion, scores
from gss.files import write_atomic
from gss.text import percent, shorten

TILE = 400  # longest side of a tile, pixels
MIN_INNER = 760  # width of the headings, for panels of tall images
GAP, MARGIN, LINE, SWATCH = 12, 20, 24, 16  # pixels
INK, PALE_INK, PAPER = (33, 37, 41), (110, 118, 126), (255, 255, 255)
WRONG, IGNORED = (214, 39, 40), (150, 150, 150)
VOID = (0, 0, 0)  # ignored pixels of the label picture

Picture = np.ndarray  # uint8 [height, width, 3], RGB
Colour = tuple[int, int, int]


def picture_name(index: int, image: Path) -> str:
    """File name of a panel, distinct for every image of a split."""
    return f"{index:05d}_{image.stem}.png"


def panel(
    path: Path,
    *,
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    names: Sequence[str],
    colours: np.ndarray | Sequence[Sequence[int]] | None = None,
    palette: np.ndarray | Sequence[Sequence[int]] | None = None,
    extras: Mapping[str, np.ndarray] | None = None,
    title: str,
) -> None:
    """Draw image and label above error and prediction, beside them what the model shows of itself, and a legend.

    Args:
        path: PNG to write, atomically.
        image: uint8 [H, W, 3], RGB.
        label: uint8 or uint16 [H, W], 0..N-1 or the largest value of the type: ignored.
        prediction: [H, W] of the same type, 0..N-1 or the largest value of the type: no class.
        names: N class names.
        colours: [N, 3], 0..255, for label and prediction; None: those of the palette.
        palette: [N+1, 3], 0..255, colours of maskiges, the ignore colour last; None: there are none, and `colours` are.
        extras: uint8 [h, w, 3] of any size by name; above each the label painted with the palette.
        title: name of the image; its mIoU and accuracy are added.

    Raises:
        GssError: the file cannot be written.
    """
    from gss.data.ids import ids_tensor

    painted = np.asarray(palette if palette is not None else [*np.asarray(colours), VOID], np.uint8)
    shown, void = (painted[:-1], painted[-1]) if colours is None else (np.asarray(colours, np.uint8), np.array(VOID))
    above = [("image", image), ("label", paint_ids(label, shown, void))]
    below = [("error", error_picture(image, label, prediction)), ("prediction", paint_ids(prediction, shown, void))]
    for name, picture in (extras or {}).items():
        above.append((name, paint_ids(label, painted[:-1], painted[-1])))
        below.append((f"predicted {name}", picture))
    found = scores(confusion(ids_tensor(prediction), ids_tensor(label), len(names), abstains=True).numpy())
    present = [int(index) for index in np.union1d(label, prediction) if index < len(names)]
    entries = [
        (f"{shorten(names[i], 30)}  {percent(found.iou[i], unit=' %')}", _rgb(shown[i]), _rgb(painted[i]))
        for i in present
    ]
    entries += [("wrong", WRONG, WRONG), ("ignored", IGNORED, IGNORED)]
    heading = (
        shorten(title, 90),
        f"mIoU {percent(found.mIoU, unit=' %')},  pixels right {percent(found.aAcc, unit=' %')}.  "
        "Below: IoU of each class in this image" + ("; colour in the label | in the maskige" if extras else ""),
    )
    canvas = _compose(heading, above, below, entries, (image.shape[0], image.shape[1]))
    write_atomic(path, lambda file: canvas.save(file, "PNG", optimize=True))


def sheet(
    path: Path,
    tiles: Sequence[tuple[str, np.ndarray, np.ndarray]],
    names: Sequence[str],
    colours: np.ndarray,
    title: str,
) -> None:
    """Draw images with the colours of their labels over them, four in a row, and a legend of the classes that occur.

    Args:
        path: PNG to write, atomically.
        tiles: of each its name, the image uint8 [H, W, 3], RGB, and the label [H, W], 0..N-1 or the largest value of
            its type: ignored, where the image alone is seen.
        names: N class names.
        colours: uint8 [N, 3].
        title: the heading.

    Raises:
        GssError: the file cannot be written.
    """
    text, side, in_a_row = _font(14), TILE * 3 // 4, min(4, len(tiles))
    present = sorted({int(index) for _, _, label in tiles for index in np.unique(label) if index < len(names)})
    entries = [(shorten(names[index], 30), _rgb(colours[index])) for index in present]
    step, top = side + GAP, MARGIN + 36
    inner, rows = max(in_a_row * step - GAP, MIN_INNER), -(-len(tiles) // in_a_row)
    columns = max(1, inner // (3 * SWATCH + max((int(text.getlength(name)) for name, _ in entries), default=1)))
    bottom = top + rows * (step + LINE)
    height = bottom + -(-len(entries) // columns) * LINE + MARGIN
    canvas = Image.new("RGB", (inner + 2 * MARGIN, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), shorten(title, 90), INK, _font(20))
    for place, (name, image, label) in enumerate(tiles):
        x, y = MARGIN + place % in_a_row * step, top + place // in_a_row * (step + LINE)
        draw.text((x, y), shorten(name, 40), INK, text)
        canvas.paste(overlay(image, label, colours, side), (x, y + LINE))
    for place, (name, colour) in enumerate(entries):
        x, y = MARGIN + place % columns * (inner // columns), bottom + place // columns * LINE
        _swatch(draw, x, y, colour, colour)
        draw.text((x + 2 * SWATCH, y), name, INK, text)
    write_atomic(path, lambda file: canvas.save(file, "PNG"))


def overlay(image: np.ndarray, label: np.ndarray, colours: np.ndarray, side: int) -> Image.Image:
    """An image with the colours of its label over it; where that is ignored, the image alone.

    Args:
        image: uint8 [H, W, 3], RGB.
        label: [H, W], 0..N-1 or the largest value of its type: ignored.
        colours: uint8 [N, 3].
        side: pixels of the longer side of the result.
    """
    mixed = (image.astype(np.uint16) + paint_ids(label, colours)) // 2
    shown = np.where((label < len(colours))[..., None], mixed, image).astype(np.uint8)
    height, width = (max(1, round(each * side / max(label.shape))) for each in label.shape)
    return _fit(shown, width, height)


def error_picture(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> Picture:
    """Red where the prediction is wrong, grey where the label is ignored, the faded photograph elsewhere."""
    faded = 160 + image.mean(axis=2, keepdims=True) * (95 / 255)  # [H, W, 1], 160..255
    result = np.broadcast_to(faded, image.shape).astype(np.uint8)
    result[label != prediction] = WRONG
    result[label == np.iinfo(label.dtype).max] = IGNORED
    return result


def paint_ids(ids: np.ndarray, colours: np.ndarray, void: Sequence[int] | np.ndarray = VOID) -> Picture:
    """Every id in the colour of its class, uint8 [H, W, 3].

    Args:
        ids: uint8 or uint16 [H, W]. colours: uint8 [N, 3]. void: of ids that are no class, RGB.
    """
    table = np.empty((np.iinfo(ids.dtype).max + 1, 3), np.uint8)
    table[:] = void
    table[: len(colours)] = colours
    return table[ids]


def _rgb(colour: np.ndarray) -> Colour:
    return int(colour[0]), int(colour[1]), int(colour[2])


def _compose(
    heading: tuple[str, str],
    above: list[tuple[str, Picture]],
    below: list[tuple[str, Picture]],
    entries: list[tuple[str, Colour, Colour]],
    size: tuple[int, int],
) -> Image.Image:
    """Two lines of heading, two rows of tiles, the legend in as many columns as fit."""
    text = _font(14)
    height, width = (max(1, round(side * TILE / max(size))) for side in size)
    inner = max(len(above) * (width + GAP) - GAP, MIN_INNER)
    columns = max(1, inner // (3 * SWATCH + max(int(text.getlength(name)) for name, *_ in entries)))
    rows = -(-len(entries) // columns)
    top = MARGIN + 58
    bottom = top + 2 * (LINE + height + GAP)
    canvas = Image.new("RGB", (inner + 2 * MARGIN, bottom + rows * LINE + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), heading[0], INK, _font(20))
    draw.text((MARGIN, MARGIN + 28), heading[1], PALE_INK, text)
    for row, tiles in enumerate((above, below)):
        for column, (name, tile) in enumerate(tiles):
            x, y = MARGIN + column * (width + GAP), top + row * (LINE + height + GAP)
            draw.text((x, y), name, INK, text)
            canvas.paste(_fit(tile, width, height), (x, y + LINE))
    for index, (name, colour, painted) in enumerate(entries):
        column, row = divmod(index, rows)
        x, y = MARGIN + column * (inner // columns), bottom + row * LINE
        _swatch(draw, x, y, colour, painted)
        draw.text((x + 2 * SWATCH, y), name, INK, text)
    return canvas


def _fit(tile: Picture, width: int, height: int) -> Image.Image:
    """Small pictures grow in hard squares, so that single pixels stay visible; large ones are averaged."""
    grows = width >= tile.shape[1]
    return Image.fromarray(tile).resize((width, height), Image.Resampling.NEAREST if grows else Image.Resampling.BOX)


def _swatch(draw: ImageDraw.ImageDraw, x: int, y: int, colour: Colour, painted: Colour) -> None:
    """Left half: colour of label and prediction; right half: colour in the maskige."""
    draw.rectangle((x, y, x + SWATCH, y + SWATCH), painted)
    draw.rectangle((x, y, x + SWATCH // 2, y + SWATCH), colour)
    draw.rectangle((x, y, x + SWATCH, y + SWATCH), outline=PALE_INK)


def _font(size: int) -> ImageFont.FreeTypeFont:
    from matplotlib import (
        get_data_path,
    )  # brings DejaVu Sans, which has far more letters than Pillow's own font

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
