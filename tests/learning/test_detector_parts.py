"""Boxes, overlaps, suppression, assignment and average precision, by hand and by plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import DataError
from toolchain.learning.data.boxes import BoxDataset, Boxes
from toolchain.learning.detection.assignment import TAKEN, assign
from toolchain.learning.detection.augment import augment
from toolchain.learning.detection.average_precision import average_precision
from toolchain.learning.detection.detections import Detections, detect, split_maps, suppress
from toolchain.learning.detection.geometry import decode, generalized_iou, iou, middles
from toolchain.learning.detection.loss import detection_loss
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.models.detector import build_detector


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)


def dataset(corners, labels, images=1, names=("a", "b"), difficult=None, image=None):
    count = len(labels)
    hard = np.zeros(count, bool) if difficult is None else np.array(difficult)
    where = np.zeros(count, np.int64) if image is None else np.array(image)
    truth = Boxes(where, np.array(corners, float).reshape(-1, 4), np.array(labels, int), hard)
    return BoxDataset(
        "x",
        np.zeros((images, 3, 64, 96), np.uint8),
        np.full((images, 2), (128, 192)),
        np.full((images, 2), 0.5),
        truth,
        names,
        tuple(f"image{i}" for i in range(images)),
    )


def test_cells_and_their_boxes():
    assert middles(1, 2, 16, torch.zeros(1)).tolist() == [[8, 8], [24, 8]]
    sides = torch.zeros(1, 4, 1, 2, dtype=torch.float64)
    sides[0, :, 0, 1] = torch.tensor([2.0, 1.0, 3.0, 0.5]).log()
    found = decode(sides, 16)[0]
    assert found[0].tolist() == [-8, -8, 24, 24]
    assert torch.allclose(found[1], torch.tensor([-8.0, -8.0, 72.0, 16.0]).double())


def test_a_diverging_side_ends_somewhere():
    assert torch.isfinite(decode(torch.full((1, 4, 1, 1), 1e4), 32)).all()


def test_overlaps_by_hand():
    a, b = boxes([0, 0, 4, 4]), boxes([2, 1, 6, 3])
    assert iou(a, b).item() == 4 / (16 + 8 - 4)
    assert iou(a, boxes([4, 0, 8, 4])).item() == 0
    assert iou(boxes([1, 1, 1, 1]), boxes([1, 1, 1, 1])).item() == 0
    # Apart by 4 in a hull of 12 x 4.
    apart = generalized_iou(a, boxes([8, 0, 12, 4]))
    assert apart.item() == pytest.approx(-(48 - 32) / 48)
    assert generalized_iou(a, a).item() == 1


side = st.integers(0, 12)


@given(st.lists(st.tuples(side, side, side, side), min_size=2, max_size=2))
def test_overlap_is_the_share_of_unit_squares(corners):
    """Boxes on a grid: count the squares that lie in both, and in either."""
    rows = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    squares = [
        {(x, y) for x in range(int(r[0]), int(r[2])) for y in range(int(r[1]), int(r[3]))}
        for r in rows
    ]
    either = squares[0] | squares[1]
    expected = len(squares[0] & squares[1]) / len(either) if either else 0.0
    assert iou(boxes(rows[0]), boxes(rows[1])).item() == pytest.approx(expected)


def plain_suppression(corners, labels):
    kept = []
    for i in range(len(labels)):
        if all(
            labels[i] != labels[j] or iou(corners[i][None], corners[j][None]).item() < 0.6
            for j in kept
        ):
            kept.append(i)
    return kept


@given(st.integers(0, 2**32 - 1), st.integers(0, 25))
def test_suppression_is_the_plain_loop(seed, count):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 10, (count, 2))
    corners = torch.tensor(
        np.concatenate([start, start + rng.integers(1, 8, (count, 2))], 1)
    ).double()
    labels = torch.tensor(rng.integers(0, 2, count))
    assert suppress(corners, labels).tolist() == plain_suppression(corners, labels.tolist())


def test_detections_by_hand():
    """Two cells that say the same box, one class of which is better; pixels of the stored image."""
    spec = DetectorSpec(16, ("a", "b"), 2)
    scores = torch.full((1, 2, 4, 6), -20.0)
    sides = torch.zeros(1, 4, 4, 6)
    scores[0, 0, 1, 1], scores[0, 0, 1, 2], scores[0, 1, 3, 5] = 0.0, 2.0, 1.0
    # Both reach from 16 to 48 and from 16 to 32 pixels.
    for x, (left, right) in ((1, (8, 24)), (2, (24, 8))):
        sides[0, :, 1, x] = torch.tensor([left, 8.0, right, 8.0]).div(16).log()
    found = detect(spec, [scores, sides], dataset([], []))
    assert found.label.tolist() == [0, 1]
    assert found.score.tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])
    assert found.corners[0].tolist() == pytest.approx([32, 32, 96, 64])
    # The last one reaches over the edges of the image, 192 x 128, where it is cut off.
    assert found.corners[1].tolist() == [144, 80, 192, 128]


def test_one_map_holds_the_classes_first():
    together = torch.arange(7.0).reshape(1, 7, 1, 1)
    scores, sides = split_maps([together])
    assert scores.flatten().tolist() == [0, 1, 2]
    assert sides.flatten().tolist() == [3, 4, 5, 6]


def found_boxes(rows):
    """(image, label, score, corners) each."""
    return Detections(
        np.array([r[0] for r in rows], np.int64),
        np.array([r[3] for r in rows], float).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], float),
    )


def test_average_precision_by_hand():
    """Class a: found, missed, false alarm between; class b: one box, overlapping by 0.6."""
    truth = dataset(
        [[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]], [0, 0, 1], 2, image=[0, 1, 0]
    )
    found = found_boxes(
        [
            (0, 0, 0.9, [0, 0, 10, 10]),
            (0, 0, 0.8, [80, 80, 90, 90]),
            (1, 1, 0.7, [0, 0, 5, 5]),
            (0, 1, 0.6, [0, 0, 10, 6]),
        ]
    )
    value = average_precision(found, truth)
    # COCO interpolates at 101 recalls: a is found for recalls up to 0.5 with precision 1.
    assert value.by_class["a"] == pytest.approx(51 / 101)
    # The false alarm of b ranks before its box.
    assert value.by_class["b"] == pytest.approx(0.5)
    assert value.at_half == pytest.approx((51 / 101 + 0.5) / 2)
    # a counts at all ten overlaps, b (IoU 0.6) at 0.5, 0.55 and 0.6.
    assert value.mean == pytest.approx((51 / 101 + 0.5 * 3 / 10) / 2)


def test_nothing_found_is_zero_and_difficult_boxes_count_neither_way():
    truth = dataset([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 0], difficult=[False, True])
    assert average_precision(found_boxes([]), truth).at_half == 0
    both = [(0, 0, 0.9, [20, 20, 40, 40]), (0, 0, 0.8, [0, 0, 10, 10])]
    assert average_precision(found_boxes(both), truth).at_half == pytest.approx(1)
    assert average_precision(found_boxes(both[1:]), truth).at_half == pytest.approx(1)
    assert set(average_precision(found_boxes(both), truth).by_class) == {"a"}


def test_cells_answer_for_the_box_around_them():
    centre = middles(4, 6, 16, torch.zeros(1, dtype=torch.float64))
    truth = boxes([16, 16, 48, 48], [66, 2, 70, 6])
    predicted = (
        torch.full((24, 2), 0.5).double(),
        centre.repeat(1, 2) + torch.tensor([-8, -8, 8, 8]),
    )
    found = assign(centre, 16, predicted, truth, torch.tensor([1, 0]))
    # The four cells inside the first box, and the one next to the small one.
    assert sorted(found.cells.tolist()) == [4, 7, 8, 13, 14]
    assert len(found.cells) <= 2 * TAKEN
    for cell, corners, weight in zip(found.cells, found.corners, found.weights, strict=True):
        label = 0 if int(cell) == 4 else 1
        assert found.scores[cell, label] == weight
        assert found.scores[cell, 1 - label] == 0
        assert corners.tolist() == truth[1 - label].tolist()
    # Each box's best cell is trained towards its overlap: 256 of 1024 pixels.
    assert found.weights[found.cells != 4].max().item() == pytest.approx(0.25)


def test_without_boxes_every_score_goes_to_zero():
    centre = middles(2, 2, 16, torch.zeros(1))
    predicted = (torch.rand(4, 3), torch.rand(4, 4))
    found = assign(centre, 16, predicted, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert float(found.scores.sum()) == 0
    assert not len(found.cells)


def test_the_loss_is_least_where_the_maps_are_right():
    truth = [(boxes([16, 16, 48, 48]).float(), torch.tensor([0]))]
    right = torch.full((1, 2, 4, 6), -8.0)
    sides = torch.zeros(1, 4, 4, 6)
    for y in (1, 2):
        for x in (1, 2):
            right[0, 0, y, x] = 8.0
            x0, y0 = 16 * x + 8, 16 * y + 8
            sides[0, :, y, x] = torch.tensor([x0 - 16, y0 - 16, 48 - x0, 48 - y0]).div(16).log()
    least = float(detection_loss((right, sides), 16, truth))
    assert 0 < least < 0.1
    for scores, where in ((-right, sides), (right, sides + 0.4), (right.flip(1), sides)):
        assert float(detection_loss((scores, where), 16, truth)) > 5 * least


@given(st.integers(0, 2**32 - 1))
def test_boxes_move_with_their_pixels(seed):
    """A white rectangle on black: after any change its box still encloses what is white."""
    rng = np.random.default_rng(seed)
    image = torch.zeros(1, 3, 64, 96)
    left, top = int(rng.integers(8, 60)), int(rng.integers(8, 40))
    right, bottom = left + int(rng.integers(12, 30)), top + int(rng.integers(12, 20))
    image[:, :, top:bottom, left:right] = 1
    corners = boxes([left, top, right, bottom])
    changed, truth = augment(image, [(corners, torch.tensor([1]))], ("flip", "scale"), rng)
    rows, columns = (changed[0, 0] > 0.5).nonzero(as_tuple=True)
    if len(truth[0][1]) and len(rows):
        found = truth[0][0][0]
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert torch.allclose(found, torch.tensor([float(e) for e in edges]).double(), atol=1.0)


def test_colour_leaves_boxes_alone():
    rng = np.random.default_rng(0)
    image = torch.rand(2, 3, 8, 8)
    truth = [(boxes([1, 1, 3, 3]), torch.tensor([0]))] * 2
    changed, after = augment(image, truth, ("colour",), rng)
    assert after == truth
    assert not torch.equal(changed, image)
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "vgg11"])
@pytest.mark.parametrize(
    ("neck", "head", "stride"), [("spp", "plain", 16), ("dilated", "decoupled", 32)]
)
def test_networks_have_their_maps(backbone, neck, head, stride):
    model = build_detector(
        (backbone, neck, head), (3, 64, 96), 3, torch.nn.ReLU, stride=stride, width=0.125
    )
    outputs = model.eval()(torch.rand(2, 3, 64, 96))
    maps = [outputs] if head == "plain" else list(outputs)
    cells = (64 // stride, 96 // stride)
    channels = [7] if head == "plain" else [3, 4]
    assert [tuple(m.shape) for m in maps] == [(2, c, *cells) for c in channels]


@pytest.mark.parametrize(
    ("parts", "shape", "stride", "message"),
    [
        (("resnet99", "spp", "plain"), (3, 64, 96), 16, "no such backbone"),
        (("resnet18", "fpn", "plain"), (3, 64, 96), 16, "no such neck"),
        (("resnet18", "spp", "double"), (3, 64, 96), 16, "no such head"),
        (("resnet18", "spp", "plain"), (3, 64, 96), 8, "no such stride"),
        (
            ("resnet18", "spp", "plain"),
            (3, 240, 320),
            32,
            r"(?s)multiple.*320x240 \(width.*320x256",
        ),
    ],
)
def test_detectors_that_cannot_be(parts, shape, stride, message):
    with pytest.raises(DataError, match=message):
        build_detector(parts, shape, 3, torch.nn.ReLU, stride=stride)
