"""Clips of what an agent did, drawn again from a segment: shapes for a browser, or pictures on one sheet.

People compare clips of a second or two, as in Christiano et al. 2017, appendix B (arXiv:1706.03741).
"""

import base64
import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assent.errors import AssentError
from assent.protocols import Dot, Drawing, Line
from assent.records import Prompt
from assent.replay import replay_frames, start_of

STRIP_FRAMES = 12
"""Frames of a strip, at most."""
STRIP_HEIGHT = 96.0
"""Height of a strip in pixels; its width follows from the frames."""
STRIP_GAP = 4.0
MAX_SIDE = 16_383
"""Pixels of the longer side of a WebP picture, at most."""


@dataclass(frozen=True)
class ShapeClip:
    """A clip of drawings."""

    fps: float
    frames: tuple[Drawing, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the clip as JSON-able values: a frame is [view, shapes], a line has six values and a dot four."""
        return {"kind": "shapes", "fps": self.fps, "frames": self.frames}


@dataclass(frozen=True)
class PictureClip:
    """A clip of pictures: the frames lie on one sheet, row by row."""

    fps: float
    width: int
    """Pixels of one frame."""
    height: int
    columns: int
    """Frames in a row of the sheet."""
    frames: int
    sheet: bytes
    """The sheet as lossless WebP."""

    def to_json(self) -> dict[str, Any]:
        """Return what a player must know to cut the sheet into frames."""
        return {"kind": "pictures", **{name: value for name, value in vars(self).items() if name != "sheet"}}


def draw_clip(prompt: Prompt, text: str) -> ShapeClip | PictureClip:
    """Replay a segment and return what it looks like, a frame for each step.

    Args:
        prompt: of behaviour: it names the environment and the seed.
        text: of a response to it.

    Raises:
        AssentError: the replay fails, Pillow is missing, or the pictures do not fit on one sheet.
    """
    frames = replay_frames(prompt, text)
    fps = float(start_of(prompt).environment.fps)
    drawings = [frame for frame in frames if isinstance(frame, Drawing)]
    pictures = [frame for frame in frames if not isinstance(frame, Drawing)]
    return _sheet(fps, np.stack(pictures)) if pictures else ShapeClip(fps, tuple(map(_rounded, drawings)))


def _rounded(drawing: Drawing) -> Drawing:
    """Return a drawing with numbers that are exact to a thousandth of its view, so that clips are small."""
    left, bottom, right, top = drawing.view
    digits = 3 - math.floor(math.log10(min(right - left, top - bottom)))

    def rounded(values: tuple[Any, ...]) -> list[Any]:
        return [value if isinstance(value, str) else round(float(value), digits) + 0.0 for value in values]

    return Drawing(tuple(rounded(drawing.view)), tuple(type(shape)(*rounded(shape)) for shape in drawing.shapes))


def _sheet(fps: float, pictures: NDArray[np.uint8]) -> PictureClip:
    """Return pictures, (T, H, W, 3), on a sheet that is about square."""
    frames, height, width, _ = pictures.shape
    columns = min(frames, math.ceil(math.sqrt(frames * height / width)))
    rows = math.ceil(frames / columns)
    if max(columns * width, rows * height) > MAX_SIDE:
        raise AssentError(f"{frames} pictures of {width} x {height} pixels do not fit on one sheet: draw smaller ones")
    sheet = np.zeros((rows, height, columns, width, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        sheet[index // columns, :, index % columns] = picture
    return PictureClip(fps, width, height, columns, frames, _webp(sheet.reshape(rows * height, columns * width, 3)))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise AssentError("clips of pictures need Pillow: pip install 'assent[control]'") from None
    return Image


def _webp(picture: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    _pillow().fromarray(picture).save(buffer, "WEBP", lossless=True, quality=0, method=2)
    return buffer.getvalue()


def draw_strip(clip: ShapeClip | PictureClip, frames: int = STRIP_FRAMES) -> str:
    """Return about `frames` frames of a clip side by side, the first and the last among them, as an SVG element.

    Its shapes have the colour of the text around them, or that of the classes `clip-ink`, `clip-accent` and
    `clip-muted` if a style sheet names one.
    """
    total = _count_frames(clip)
    chosen = np.unique(np.linspace(0, total - 1, min(frames, total)).round().astype(int)).tolist()
    width, cells = _draw_cells(clip, chosen)
    whole = len(chosen) * (width + STRIP_GAP) - STRIP_GAP
    return (
        f'<svg class="clip-strip" viewBox="0 0 {whole:g} {STRIP_HEIGHT:g}" role="img" '
        f'aria-label="{len(chosen)} frames of a clip of {total / clip.fps:.1f} seconds">{cells}</svg>'
    )


def draw_film(clip: ShapeClip | PictureClip) -> str:
    """Return a clip as an SVG element that plays without a script, again and again.

    It is a strip of all frames behind a window of one; readers who ask for reduced motion see the first frame. Colours
    are those of `draw_strip`.
    """
    total = _count_frames(clip)
    width, cells = _draw_cells(clip, list(range(total)))
    seconds = total / clip.fps
    return (
        f'<svg class="clip-film" viewBox="0 0 {width:g} {STRIP_HEIGHT:g}" role="img" '
        f'aria-label="A clip of {seconds:.1f} seconds">'
        "<style>@keyframes clip-film { to { transform: translateX(var(--end)) } } "
        "@media (prefers-reduced-motion: reduce) { .clip-film g { animation: none !important } }</style>"
        f'<g style="--end: {-total * (width + STRIP_GAP):g}px; '
        f'animation: clip-film {seconds:g}s steps({total}) infinite">{cells}</g></svg>'
    )


def _count_frames(clip: ShapeClip | PictureClip) -> int:
    return clip.frames if isinstance(clip, PictureClip) else len(clip.frames)


def _draw_cells(clip: ShapeClip | PictureClip, chosen: list[int]) -> tuple[float, str]:
    """Return the width of a cell, and the chosen frames as cells side by side."""
    if isinstance(clip, PictureClip):
        return _picture_cells(clip, chosen)
    return _shape_cells([clip.frames[index] for index in chosen])


def _shape_cells(drawings: list[Drawing]) -> tuple[float, str]:
    """Return the width of a cell, and all cells, each with its own view."""
    left, bottom, right, top = drawings[0].view
    width = round(STRIP_HEIGHT * (right - left) / (top - bottom), 1)
    cells = []
    for index, drawing in enumerate(drawings):
        left, bottom, right, top = drawing.view
        view = " ".join(f"{value:.6g}" for value in (left, -top, right - left, top - bottom))
        x = round(index * (width + STRIP_GAP), 1)
        shapes = "".join(map(_svg_shape, drawing.shapes))
        cells.append(f'<svg x="{x:g}" width="{width:g}" height="{STRIP_HEIGHT:g}" viewBox="{view}">{shapes}</svg>')
    return width, "".join(cells)


def _svg_shape(shape: Line | Dot) -> str:
    """Return a shape as SVG, where y points down."""
    if isinstance(shape, Dot):
        x, y, radius = (f"{value:.6g}" for value in (shape.x, -shape.y, shape.radius))
        return f'<circle class="clip-{shape.tone}" cx="{x}" cy="{y}" r="{radius}" fill="currentColor"/>'
    x0, y0, x1, y1, width = (f"{v:.6g}" for v in (shape.x0, -shape.y0, shape.x1, -shape.y1, shape.width))
    return (
        f'<line class="clip-{shape.tone}" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke-width="{width}" '
        'stroke="currentColor" stroke-linecap="round"/>'
    )


def _picture_cells(clip: PictureClip, chosen: list[int]) -> tuple[float, str]:
    """Return the width of a cell, and the chosen frames as pictures within the document."""
    sheet = np.asarray(_pillow().open(BytesIO(clip.sheet)).convert("RGB"))
    width = round(STRIP_HEIGHT * clip.width / clip.height, 1)
    cells = []
    for place, index in enumerate(chosen):
        row, column = divmod(index, clip.columns)
        top, left = row * clip.height, column * clip.width
        frame = _webp(sheet[top : top + clip.height, left : left + clip.width])
        cells.append(
            f'<image x="{place * (width + STRIP_GAP):g}" width="{width:g}" height="{STRIP_HEIGHT:g}" '
            f'href="data:image/webp;base64,{base64.b64encode(frame).decode()}"/>'
        )
    return width, "".join(cells)
