"""The drawn detection data: boxes lie where shapes are, and everybody draws the same."""

import numpy as np
import pytest

from toolchain.errors import DataError
from toolchain.learning.data import box_splits, open_boxes
from toolchain.learning.data.shapes import COUNTS, GROUND, NOISE, STORED

AS_STORED = STORED


def test_they_are_the_same_each_time():
    first, again = (open_boxes("shapes@val", (64, 96)) for _ in range(2))
    assert first.sha256 == again.sha256
    assert len(first) == COUNTS["val"]
    assert set(first.boxes.label) == {0, 1, 2}
    assert box_splits("shapes") == ["train", "val", "test"]
    assert first.sha256 != open_boxes("shapes@test", (64, 96)).sha256


def test_boxes_are_where_the_shapes_are():
    """Ground lies between all boxes; the middle of each box is of one colour, without noise."""
    data = open_boxes("shapes@test[:20]", AS_STORED)
    for index in range(len(data)):
        image = data.samples[index].astype(int)
        outside = np.ones(STORED, bool)
        boxes = data.boxes.corners[data.boxes.image == index].astype(int)
        for left, top, right, bottom in boxes:
            outside[top:bottom, left:right] = False
            row, column = (top + bottom) // 2, (left + right) // 2
            assert len(np.unique(image[:, row, column - 1 : column + 2], axis=1).T) == 1
        assert abs(image[:, outside].mean() - GROUND) < 2
        assert abs(image[:, outside].std() - NOISE) < 2


def test_squares_fill_their_boxes_and_others_leave_corners():
    data = open_boxes("shapes@test[:20]", AS_STORED)
    for index in range(len(data)):
        rows = data.boxes.image == index
        for (left, top, right, bottom), label in zip(
            data.boxes.corners[rows].astype(int), data.boxes.label[rows], strict=True
        ):
            inside = data.samples[index][:, top:bottom, left:right]
            middle = inside[:, inside.shape[1] // 2, inside.shape[2] // 2]
            filled = (inside == middle[:, None, None]).all(0).mean()
            expected = (np.pi / 4, 1.0, 0.5)[label]
            assert filled == pytest.approx(expected, abs=0.06)


def test_there_is_nothing_to_read():
    with pytest.raises(DataError, match="drawn, not read"):
        open_boxes("shapes:folder", (64, 96))
    with pytest.raises(DataError, match=r"(?s)no such split.*train, val, test"):
        open_boxes("shapes@trainval", (64, 96))
