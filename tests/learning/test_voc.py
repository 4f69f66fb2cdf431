"""The Pascal VOC reader: what it reads, and every way such data can be wrong."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.voc_files import write_annotation, write_voc
from toolchain.errors import DataError
from toolchain.learning.data import box_splits, open_boxes, open_split, parse_source
from toolchain.learning.data.boxes import fitted

SIZE = (64, 96)


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "set", {"train": 3, "test": 2})


def one(folder, objects, size=(96, 64), image=None):
    """A set of one image with these objects."""
    write_voc(folder, {"test": 1})
    write_annotation(folder / "Annotations/image_000.xml", size, objects)
    if image is not None:
        image.save(folder / "JPEGImages/image_000.jpg")
    return f"voc:{folder}"


def test_a_folder(voc):
    data = open_boxes(f"voc:{voc}", SIZE, "train")
    assert len(data) == 3
    assert data.class_names == ("disc", "square")
    assert data.sample_shape == (3, 64, 96)
    assert data.image_names == ("image_000", "image_001", "image_002")
    assert data.name == f"voc:{voc}@train"
    assert box_splits(f"voc:{voc}") == ["train", "test"]


def test_a_zip_is_the_same_wherever_it_begins(voc, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(voc.rglob("*")):
            archive.write(file, f"VOCdevkit/VOC2012/{file.relative_to(voc)}")
    folder = open_boxes(f"voc:{voc}", SIZE)
    packed = open_boxes(f"voc:{tmp_path / 'set.zip'}", SIZE)
    assert packed.sha256 == folder.sha256


def test_pixels_count_from_1_and_the_last_is_inside(tmp_path):
    """A box around one white pixel, and one around the whole image."""
    image = Image.new("RGB", (96, 64))
    image.putpixel((10, 20), (255, 255, 255))
    source = one(tmp_path, [("a", 11, 21, 11, 21), ("b", 1, 1, 96, 64)], image=image)
    image.save(tmp_path / "JPEGImages/image_000.png")
    (tmp_path / "JPEGImages/image_000.jpg").unlink()
    data = open_boxes(source, SIZE)
    assert data.boxes.corners.tolist() == [[10, 20, 11, 21], [0, 0, 96, 64]]
    left, top, right, bottom = data.boxes.corners[0].astype(int)
    assert (data.samples[0][:, top:bottom, left:right] == 255).all()
    assert int(data.samples[0].sum()) == 3 * 255


def test_images_keep_their_shape(tmp_path):
    """A 40x20 image in 64x96: twice as large, black below, and its boxes twice as large."""
    image = Image.new("RGB", (40, 20), (200, 200, 200))
    data = open_boxes(one(tmp_path, [("a", 1, 1, 20, 10)], (40, 20), image), SIZE)
    assert data.scales.tolist() == [[48 / 20, 96 / 40]]
    assert data.placed().tolist() == [[0, 0, 48, 24]]
    assert (data.samples[0][:, 48:] == 0).all()
    assert (data.samples[0][:, :48] > 190).all()


@pytest.mark.parametrize(
    ("stored", "size", "expected"),
    [
        ((480, 640), (240, 320), (240, 320)),
        ((100, 50), (64, 64), (64, 32)),
        ((3, 999), SIZE, (1, 96)),
    ],
)
def test_fitted(stored, size, expected):
    assert fitted(stored, size) == expected


def test_slices_keep_their_boxes(voc):
    whole = open_boxes(f"voc:{voc}@train", SIZE)
    part = open_boxes(f"voc:{voc}@train[1:3]", SIZE)
    assert len(part) == 2
    for index in range(2):
        ours, theirs = part.boxes.image == index, whole.boxes.image == index + 1
        assert np.array_equal(part.boxes.corners[ours], whole.boxes.corners[theirs])
        assert np.array_equal(part.boxes.label[ours], whole.boxes.label[theirs])


def test_difficult_boxes_are_marked(tmp_path):
    source = one(tmp_path, [])
    write_annotation(tmp_path / "Annotations/image_000.xml", (96, 64), [("a", 1, 1, 5, 5)], 1)
    assert open_boxes(source, SIZE).boxes.difficult.tolist() == [True]


def break_xml(folder):
    (folder / "Annotations/image_001.xml").write_text("<annotation><object>")


def no_number(folder):
    file = folder / "Annotations/image_001.xml"
    file.write_text(file.read_text().replace("<xmin>", "<xmin>x"))


def no_name(folder):
    file = folder / "Annotations/image_001.xml"
    file.write_text(file.read_text().replace("<name>", "<nome>").replace("</name>", "</nome>"))


def entities(folder):
    (folder / "Annotations/image_001.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')


def outside(folder):
    write_annotation(folder / "Annotations/image_001.xml", (96, 64), [("disc", 1, 1, 97, 5)])


def before_the_first_pixel(folder):
    write_annotation(folder / "Annotations/image_001.xml", (96, 64), [("disc", 0, 1, 9, 5)])


def backwards(folder):
    write_annotation(folder / "Annotations/image_001.xml", (96, 64), [("disc", 9, 1, 3, 5)])


def other_size(folder):
    write_annotation(folder / "Annotations/image_001.xml", (90, 64), [("disc", 1, 1, 3, 5)])


def no_annotation(folder):
    (folder / "Annotations/image_001.xml").unlink()


def no_image(folder):
    (folder / "JPEGImages/image_001.jpg").unlink()


def damaged_image(folder):
    (folder / "JPEGImages/image_001.jpg").write_bytes(b"not a picture")


def transparent(folder):
    (folder / "JPEGImages/image_001.jpg").unlink()
    Image.new("RGBA", (96, 64)).save(folder / "JPEGImages/image_001.png")


def binary_list(folder):
    (folder / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe\x00")


def empty_list(folder):
    (folder / "ImageSets/Main/train.txt").write_text("\n")


def no_boxes(folder):
    for file in (folder / "Annotations").iterdir():
        write_annotation(file, (96, 64), [])


def no_lists(folder):
    for file in (folder / "ImageSets/Main").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_xml, r"(?s)image_001\.xml: malformed XML.*line 1"),
        (no_number, r"(?s)image_001\.xml: a number is missing or damaged.*bndbox/xmin 'x"),
        (no_name, r"image_001\.xml: an object has no name"),
        (entities, r"image_001\.xml: not an annotation"),
        (
            outside,
            r"(?s)image_001\.xml: a box lies outside.*disc 1, 1 \.\. 97, 5.*1, 1 \.\. 96, 64",
        ),
        (before_the_first_pixel, r"(?s)image_001\.xml: a box lies outside.*disc 0, 1"),
        (backwards, r"image_001\.xml: a box ends before it begins"),
        (other_size, r"(?s)image_001\.xml: .*another size.*\(64, 90\).*\(64, 96\)"),
        (no_annotation, r"(?s)a file is missing.*Annotations/image_001\.xml"),
        (no_image, r"(?s)an image is missing.*JPEGImages/image_001\.jpg"),
        (damaged_image, r"image_001\.jpg: an image is damaged"),
        (transparent, r"(?s)image_001\.png: pixel format.*RGBA"),
        (binary_list, r"train\.txt: not a text file"),
        (empty_list, r"lists no images"),
        (no_boxes, r"(?s)has no boxes.*3 images in train"),
        (no_lists, r"(?s)Pascal VOC's layout.*0 folders"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(voc, spoil, message):
    spoil(voc)
    with pytest.raises(DataError, match=message):
        open_boxes(f"voc:{voc}@train", SIZE)


def test_other_mistakes(voc, tmp_path):
    (tmp_path / "file").write_text("no zip")
    for source, message in (
        (f"voc:{tmp_path / 'missing'}", "no such folder or zip"),
        (f"voc:{tmp_path / 'file'}", "neither a folder nor a zip"),
        (f"voc:{voc}@val", r"(?s)no such split.*train, test"),
        (f"voc:{voc}@other", r"(?s)no such split.*trainval"),
        (f"voc:{voc}@test[1:1]", "slice is empty"),
        (f"voc:{voc}@test[0:9]", "ends behind the last"),
        ("voc", "a path is needed"),
        ("digits", "needs images with boxes"),
    ):
        with pytest.raises(DataError, match=message):
            open_boxes(source, SIZE)
    with pytest.raises(DataError, match="boxes, for detectors"):
        open_split(f"voc:{voc}")
    assert parse_source(f"voc:{voc}@trainval").split == "trainval"


def test_other_classes_are_told(voc):
    with pytest.raises(DataError, match=r"(?s)other classes.*2: disc, square.*3: a, b, c"):
        open_boxes(f"voc:{voc}", SIZE).check_classes(("a", "b", "c"))
