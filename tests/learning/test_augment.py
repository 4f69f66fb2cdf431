"""Augmentation: what each change does, and that the seed alone decides."""

import numpy as np
import pytest
import torch
from PIL import Image

from toolchain.errors import DataError
from toolchain.learning.training.augment import (
    augment_normalised,
    augment_pixels,
    check_augmentations,
)
from toolchain.learning.training.autoaugment import OPERATIONS, POLICY, autoaugment


def images(count=6, channels=3, side=32, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(1, 256, (count, channels, side, side), np.uint8)
    )


def test_crop_is_a_window_of_the_padded_image():
    x = images()
    out = augment_pixels(x, ("crop",), np.random.default_rng(3))
    rng = np.random.default_rng(3)
    tops, lefts = rng.integers(0, 9, 6), rng.integers(0, 9, 6)
    for image, cropped, top, left in zip(x.numpy(), out.numpy(), tops, lefts, strict=True):
        padded = np.zeros((3, 40, 40), np.uint8)
        padded[:, 4:36, 4:36] = image
        assert np.array_equal(cropped, padded[:, top : top + 32, left : left + 32])


def test_flip_turns_about_half_of_the_images():
    x = images(400, 1, 4)
    out = augment_pixels(x, ("flip",), np.random.default_rng(0))
    same = (out == x).flatten(1).all(1)
    turned = (out == x.flip(-1)).flatten(1).all(1)
    assert bool((same | turned).all())
    assert 150 < int(turned.sum()) < 250


def test_cutout_sets_one_square_to_zero():
    x = torch.ones(50, 3, 32, 32)
    out = augment_normalised(x, ("cutout",), np.random.default_rng(0))
    for image in out:
        hole = image[0] == 0
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert bool(hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())
        assert int(hole.sum()) == len(rows) * len(columns)
        assert max(len(rows), len(columns)) <= 16
        assert min(len(rows), len(columns)) >= 8


def test_the_seed_decides():
    x, names = images(20), ("crop", "flip", "autoaugment")
    a, b, c = (augment_pixels(x, names, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.dtype == torch.uint8
    assert a.shape == x.shape


@pytest.mark.parametrize("channels", [1, 3])
def test_autoaugment_changes_most_images(channels):
    x = images(100, channels).numpy()
    out = autoaugment(x, np.random.default_rng(0))
    changed = (out != x).reshape(100, -1).any(axis=1).mean()
    assert out.shape == x.shape
    assert 0.5 < changed < 1


def test_the_policy_names_known_operations_only():
    assert len(POLICY) == 25
    assert {o.name for pair in POLICY for o in pair} <= set(OPERATIONS)
    assert all(0 <= o.probability <= 1 and 0 <= o.magnitude <= 9 for p in POLICY for o in p)


def test_operations_by_hand():
    grey = Image.new("L", (32, 32), 200)
    assert np.unique(np.asarray(OPERATIONS["invert"](grey, 0.5, 1))).tolist() == [55]
    assert np.unique(np.asarray(OPERATIONS["solarize"](grey, 1 / 3, 1))).tolist() == [55]
    assert np.unique(np.asarray(OPERATIONS["posterize"](grey, 1.0, 1))).tolist() == [192]
    assert np.unique(np.asarray(OPERATIONS["brightness"](grey, 5 / 9, -1))).tolist() == [100]
    ramp = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1)))
    moved = np.asarray(OPERATIONS["translate_x"](ramp, 1.0, 1))
    # 150 / 331 of 32 pixels is 14.5: the picture moves left by 14, what comes in is grey.
    assert moved[0, :17].tolist() == list(range(15, 32)) or moved[0, :17].tolist() == list(
        range(14, 31)
    )
    assert moved[0, 18:].tolist() == [128] * 14


def test_operations_as_the_official_code_has_them():
    values = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    kept = np.arange(256) < 256 - 2 * 256 / 9
    expected = np.where(kept, np.arange(256), 255 - np.arange(256))
    assert (
        np.asarray(OPERATIONS["solarize"](values, 2 / 9, 1)).ravel().tolist() == expected.tolist()
    )
    picture = Image.fromarray(images(1).numpy()[0].transpose(1, 2, 0))
    turned = picture.convert("RGBA").rotate(20 / 3)
    grey = Image.new("RGBA", picture.size, (128,) * 4)
    expected = np.asarray(Image.composite(turned, grey, turned).convert("RGB"))
    for sign in (1, -1):
        assert np.array_equal(OPERATIONS["rotate"](picture, 2 / 9, sign), expected)
    sheared = picture.transform(
        (32, 32),
        Image.Transform.AFFINE,
        (1, 0, 0, -0.3, 1, 0),
        Image.Resampling.BICUBIC,
        fillcolor=(128, 128, 128),
    )
    assert np.array_equal(OPERATIONS["shear_y"](picture, 1.0, -1), np.asarray(sheared))


def test_black_cutout_is_made_before_normalisation():
    x = torch.full((20, 3, 32, 32), 9, dtype=torch.uint8)
    out = augment_pixels(x, ("cutout-black",), np.random.default_rng(0))
    assert out.dtype == torch.uint8
    assert set(out.unique().tolist()) == {0, 9}
    square = augment_normalised(x.float(), ("cutout",), np.random.default_rng(0))
    assert torch.equal(square, out.float())


def test_refusals():
    with pytest.raises(DataError, match="no such augmentation"):
        check_augmentations(("zoom",), (3, 32, 32), True)
    with pytest.raises(DataError, match="grey or RGB pixel images"):
        check_augmentations(("crop",), (64,), True)
    with pytest.raises(DataError, match="grey or RGB pixel images"):
        check_augmentations(("crop",), (3, 32, 32), False)
