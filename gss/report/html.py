"""Pages that people open from disk: one file each, nothing fetched, names from data escaped."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from gss.files import write_text
from gss.text import percent

_PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", Path(__file__).parents[1] / "recipes"]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of two fractions in percentage points, with its sign: -0.012 -> `−1.2`."""
    return "–" if difference is None else f"{100 * difference:+.{digits}f}".replace("-", "−")


def count(number: int) -> str:
    """1234567 -> `1 234 567`, with spaces that do not break."""
    return f"{number:,}".replace(",", "\u00a0")


_PAGES.filters["percent"] = percent
_PAGES.filters["points"] = points
_PAGES.filters["count"] = count


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template of `gss/report/templates` that extends `base.html`, and write it atomically.

    Args:
        values: what the template names; strings are escaped. `base.html` needs `title`.
    """
    write_text(path, _PAGES.get_template(template).render(**values))


def image_uri(picture: Path | np.ndarray | Image.Image, *, format: str = "PNG", **options: Any) -> Markup:
    """A picture as an address that holds it: for `src`.

    Args:
        picture: a PNG or JPEG file, taken as it is; an array uint8 [H, W, 3] or [H, W]; a Pillow image.
        format: `PNG`, `JPEG` or `WEBP`, of arrays and Pillow images.
        options: of Pillow's `save`, such as `quality`.
    """
    if isinstance(picture, Path):
        kind, content = ("jpeg" if picture.suffix in (".jpg", ".jpeg") else "png"), picture.read_bytes()
    else:
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        stream = io.BytesIO()
        image.save(stream, format, **options)
        kind, content = format.lower(), stream.getvalue()
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
