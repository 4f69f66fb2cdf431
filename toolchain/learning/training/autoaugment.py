"""The AutoAugment policy for CIFAR-10, its operations done by Pillow.

Each image gets one of 25 sub-policies: two operations, each with its probability and magnitude
(0..9). Source: Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data" (CVPR
2019), table 7 (policy) and table 6 (ranges of the magnitudes), in the form of the official QCFS
and NQ code: only counterclockwise rotations, a bicubic shear, solarize from 256 down. Areas
without content become the paper's grey, 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = 128
NEAREST, BICUBIC = Image.Resampling.NEAREST, Image.Resampling.BICUBIC
LEVELS = 10
SHEAR = 0.3
TRANSLATE = 150 / 331
"""Largest shift as a share of the side; the paper shifts images of 331 pixels by up to 150."""
ROTATE_DEGREES = 30.0
"""Counterclockwise always."""
ENHANCE = 0.9
POSTERIZE_BITS = 4
"""Bits taken away at the highest magnitude, out of 8."""


@dataclass(frozen=True)
class Operation:
    """One step of a sub-policy."""

    name: str
    probability: float
    magnitude: int = 0


def _policy(
    rows: tuple[tuple[str, float, int, str, float, int], ...],
) -> tuple[tuple[Operation, Operation], ...]:
    return tuple((Operation(a, p, m), Operation(b, q, n)) for a, p, m, b, q, n in rows)


POLICY = _policy(
    (
        ("invert", 0.1, 7, "contrast", 0.2, 6),
        ("rotate", 0.7, 2, "translate_x", 0.3, 9),
        ("sharpness", 0.8, 1, "sharpness", 0.9, 3),
        ("shear_y", 0.5, 8, "translate_y", 0.7, 9),
        ("autocontrast", 0.5, 8, "equalize", 0.9, 2),
        ("shear_y", 0.2, 7, "posterize", 0.3, 7),
        ("color", 0.4, 3, "brightness", 0.6, 7),
        ("sharpness", 0.3, 9, "brightness", 0.7, 9),
        ("equalize", 0.6, 5, "equalize", 0.5, 1),
        ("contrast", 0.6, 7, "sharpness", 0.6, 5),
        ("color", 0.7, 7, "translate_x", 0.5, 8),
        ("equalize", 0.3, 7, "autocontrast", 0.4, 8),
        ("translate_y", 0.4, 3, "sharpness", 0.2, 6),
        ("brightness", 0.9, 6, "color", 0.2, 8),
        ("solarize", 0.5, 2, "invert", 0.0, 3),
        ("equalize", 0.2, 0, "autocontrast", 0.6, 0),
        ("equalize", 0.2, 8, "equalize", 0.6, 4),
        ("color", 0.9, 9, "equalize", 0.6, 6),
        ("autocontrast", 0.8, 4, "solarize", 0.2, 8),
        ("brightness", 0.1, 3, "color", 0.7, 0),
        ("solarize", 0.4, 5, "autocontrast", 0.9, 3),
        ("translate_y", 0.9, 9, "translate_y", 0.7, 9),
        ("autocontrast", 0.9, 2, "solarize", 0.8, 3),
        ("equalize", 0.8, 8, "invert", 0.1, 3),
        ("translate_y", 0.7, 9, "autocontrast", 0.9, 1),
    )
)


def autoaugment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """New uint8 images (N, C, H, W), C = 1 or 3; random numbers come from `rng` alone."""
    changed = np.empty_like(images)
    for index, array in enumerate(images):
        image = Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))
        for operation in POLICY[rng.integers(len(POLICY))]:
            wanted, sign = rng.random() < operation.probability, 1 if rng.random() < 0.5 else -1
            if wanted:
                strength = operation.magnitude / (LEVELS - 1)
                image = OPERATIONS[operation.name](image, strength, sign)
        result = np.asarray(image)
        changed[index] = result[None] if result.ndim == 2 else result.transpose(2, 0, 1)
    return changed


def _affine(
    image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling = NEAREST
) -> Image.Image:
    fill = GREY if image.mode == "L" else (GREY, GREY, GREY)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)


def _rotate(image: Image.Image, strength: float, sign: int) -> Image.Image:
    fill = GREY if image.mode == "L" else (GREY, GREY, GREY)
    return image.rotate(strength * ROTATE_DEGREES, fillcolor=fill)


def _shear_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, 0, sign * strength * SHEAR, 1, 0), BICUBIC)


def _translate_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, sign * strength * TRANSLATE * image.width, 0, 1, 0))


def _translate_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, sign * strength * TRANSLATE * image.height))


def _posterize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(strength * POSTERIZE_BITS))


def _solarize(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.solarize(image, math.ceil(256 * (1 - strength)))


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> _Change:
    def change(image: Image.Image, strength: float, sign: int) -> Image.Image:
        return kind(image).enhance(1 + sign * strength * ENHANCE)

    return change


_Change = Callable[[Image.Image, float, int], Image.Image]
OPERATIONS: dict[str, _Change] = {
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    "invert": lambda image, strength, sign: ImageOps.invert(image),
    "posterize": _posterize,
    "rotate": _rotate,
    "shear_y": _shear_y,
    "solarize": _solarize,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "brightness": _enhance(ImageEnhance.Brightness),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
}
"""Take the image, the strength in [0, 1] and a random sign."""
