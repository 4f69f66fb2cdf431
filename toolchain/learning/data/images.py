"""Decoding of image files: a fixed list of formats, bounded sizes, one frame."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolchain.documents import as_error
from toolchain.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may try. Others run programs (EPS starts Ghostscript) or read other files."""
MOST_PIXELS = 1 << 25
"""Of an image: 33 million, a photo of 6000 x 5500."""


@contextmanager
def open_image(data: bytes, node: str) -> Iterator[Image]:
    """An image of one frame and at most `MOST_PIXELS` pixels, open inside the `with` block.

    Raises
    ------
    DataError
        If it is none, is damaged, or another limit does not hold; `node` names the file. Whatever
        decoding raises inside the block becomes one too.
    """
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    with as_error(DataError, "an image is damaged", node):
        with warnings.catch_warnings():
            # Pillow warns of many pixels; this limit is lower and an error.
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            try:
                opened = pillow.open(io.BytesIO(data), formats=FORMATS)
            except UnidentifiedImageError as error:
                raise DataError(
                    "an image is damaged, or of another format",
                    node=node,
                    allowed=", ".join(FORMATS),
                ) from error
        with opened as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(
                    "an image is too large",
                    node=node,
                    found=f"{image.width} x {image.height} pixels",
                    allowed=f"{MOST_PIXELS:,} pixels",
                )
            frames = getattr(image, "n_frames", 1)
            if frames != 1:
                raise DataError(
                    "an image has several frames", node=node, found=frames, allowed="one"
                )
            yield image
