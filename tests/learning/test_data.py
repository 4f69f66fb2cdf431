"""Data sources: what they hold, and every way they can be wrong."""

import gzip
import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.fresh_python import python
from toolchain.errors import DataError
from toolchain.learning.data import digits, open_split, parse_source
from toolchain.program.input_quantizer import InputQuantizer


def png(value, size=(4, 3), mode="L"):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            for index in range(count):
                file = tmp_path / "d" / split / name / f"{index}.png"
                file.write_bytes(png(10 * label + index))
    return tmp_path / "d"


def test_digits():
    train, test = open_split("digits@train"), open_split("digits@test")
    assert len(train) + len(test) == 1797
    assert train.sample_shape == (1, 8, 8)
    assert train.samples.max() == train.pixel_max == 16
    assert np.bincount(test.labels).min() >= 34
    rows = {r.tobytes() for r in train.samples}
    assert sum(r.tobytes() in rows for r in test.samples) == 0


@pytest.mark.parametrize("file", [digits.FILE, "moved/elsewhere.csv.gz"])
def test_digits_are_those_of_scikit_learn(monkeypatch, file):
    monkeypatch.setattr(digits, "FILE", file)
    found = [digits.load(None, split) for split in ("train", "test")]
    theirs = load_digits()
    ours = [
        (label, image.tobytes())
        for part in found
        for image, label in zip(part.samples, part.labels, strict=True)
    ]
    images = theirs.images.astype(np.uint8)
    expected = zip(theirs.target, (image.tobytes() for image in images), strict=True)
    assert sorted(ours) == sorted(expected)


def test_digits_are_read_without_importing_scikit_learn():
    script = (
        "import sys; from toolchain.learning.data import digits; digits.load(None, 'test');"
        "print('sklearn' in sys.modules)"
    )
    assert python(script)[0] == "False\n"


def test_split_and_slice():
    whole = open_split("digits@test")
    part = open_split("digits@test[3:8]")
    assert np.array_equal(part.samples, whole.samples[3:8])
    assert part.name == "digits@test[3:8]"
    assert len(open_split("digits@test[:5]")) == 5
    last = open_split("digits@test[-8:-3]")
    assert np.array_equal(last.samples, whole.samples[-8:-3])
    assert last.name == f"digits@test[{len(whole) - 8}:{len(whole) - 3}]"
    assert open_split("digits").name == "digits@test"
    assert open_split("digits", "train").name == "digits@train"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar", "not a data source"),
        ("digits@validation", "no such split"),
        ("digits@test[5:5]", "slice is empty"),
        ("digits@test[:9999]", "slice ends behind"),
        ("digits@test[-9999:]", "slice starts before"),
        ("digits@test[-3:-5]", "slice is empty"),
        ("digits:somewhere", "take no path"),
        ("imagefolder", "a path is needed"),
        ("npz", "a path is needed"),
        ("imagefolder:/nowhere", "no such folder or zip"),
        ("npz:/nowhere.npz", "no such file"),
        ("fashion-mnist:/nowhere", "apt-get install dataset-fashion-mnist"),
    ],
)
def test_wrong_sources(text, message):
    with pytest.raises(DataError, match=message):
        open_split(text)


def test_grammar():
    source = parse_source("imagefolder:../a b/c.zip@train[10:]")
    assert (source.name, str(source.path), source.split) == ("imagefolder", "../a b/c.zip", "train")
    assert (source.start, source.stop) == (10, None)


def test_fashion_mnist_files(tmp_path):
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    header = bytes((0, 0, 8, 3)) + np.array([2, 28, 28], ">u4").tobytes()
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(
        bytes((0, 0, 8, 1)) + np.array([2], ">u4").tobytes() + bytes((3, 9))
    )
    data = open_split(f"fashion-mnist:{tmp_path}@test")
    assert np.array_equal(data.samples[:, 0], images)
    assert data.labels.tolist() == [3, 9]
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header))
    with pytest.raises(DataError, match="content does not fit the header"):
        open_split(f"fashion-mnist:{tmp_path}@test")
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataError, match="file is damaged"):
        open_split(f"fashion-mnist:{tmp_path}@test")
    with pytest.raises(DataError, match="no such file"):
        open_split(f"fashion-mnist:{tmp_path}@train")


def test_imagefolder_and_zip_agree(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    a, b = (
        open_split(f"imagefolder:{folder}@train"),
        open_split(f"imagefolder:{tmp_path}/d.zip@train"),
    )
    assert np.array_equal(a.samples, b.samples)
    assert a.samples.shape == (6, 1, 3, 4)
    assert a.class_names == ("cat", "dog")
    assert a.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert a.samples[:, 0, 0, 0].tolist() == [0, 10, 1, 11, 2, 12]


def test_imagefolder_mixed_grey_and_colour(folder):
    (folder / "test/cat/9.png").write_bytes(png((1, 2, 3), mode="RGB"))
    data = open_split(f"imagefolder:{folder}@test")
    assert data.sample_shape == (3, 3, 4)
    assert data.samples[4, :, 0, 0].tolist() == [1, 2, 3]
    assert data.samples[2, :, 0, 0].tolist() == [1, 1, 1]


def test_imagefolder_refusals(folder, tmp_path):
    def refused(message, split="test"):
        with pytest.raises(DataError, match=message):
            open_split(f"imagefolder:{folder}@{split}")

    extra = folder / "test/cat/9.png"
    extra.write_bytes(png(1, size=(5, 3)))
    refused(r"one size[\s\S]*test/cat/9.png is 5x3")
    extra.write_bytes(png((1, 1, 1, 1), mode="RGBA"))
    refused("pixel format is not supported")
    extra.write_bytes(b"not an image")
    refused(r"9\.png: an image is damaged")
    extra.unlink()
    (folder / "stray.png").write_bytes(png(1))
    refused("lies outside train")
    (tmp_path / "x.zip").write_text("no zip")
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        open_split(f"imagefolder:{tmp_path}/x.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images under test"):
        open_split(f"imagefolder:{tmp_path}/empty")


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    samples = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(path, test_samples=samples, test_labels=np.array([0, 2]))
    data = open_split(f"npz:{path}")
    assert data.sample_shape == (1, 3, 4)
    assert len(data.class_names) == 3
    assert data.pixel_max == 255
    np.savez(path, test_samples=samples.reshape(2, 12) / 7.0, test_labels=np.array([0, 1]))
    data = open_split(f"npz:{path}")
    assert data.pixel_max is None
    assert data.real().max() == pytest.approx(23 / 7)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(2)}, "arrays are missing"),
        (
            {"test_samples": np.zeros((2, 3)), "test_labels": np.zeros(3, int)},
            "one label per sample",
        ),
        ({"test_samples": np.zeros((2, 3)), "test_labels": np.zeros(2)}, "labels must be integers"),
        ({"test_samples": np.zeros((2, 3), int), "test_labels": np.zeros(2, int)}, "uint8 pixels"),
        ({"test_samples": np.zeros((2,)), "test_labels": np.zeros(2, int)}, "2 to 5 axes"),
        ({"test_samples": np.zeros((0, 3)), "test_labels": np.zeros(0, int)}, "no samples"),
        (
            {"test_samples": np.array([None, 1], object), "test_labels": np.zeros(2, int)},
            "not a readable .npz",
        ),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        open_split(f"npz:{path}")


def test_quantizer_holds_pixels_exactly():
    quantizer = InputQuantizer.for_interval((1, 2, 2), 0.0, 1.0, levels=255)
    pixels = np.arange(256, dtype=np.uint8).reshape(64, 1, 2, 2)
    real = pixels.astype(np.float32) / np.float32(255)
    assert np.array_equal(quantizer.quantize(real), pixels)
    assert (quantizer.bits, quantizer.signed) == (8, False)
    assert InputQuantizer.for_interval((1,), 0.0, 1.0, levels=16).bits == 5


def test_quantizer_with_normalisation_by_hand():
    # (x - 0.5) / 0.25 spans -2 .. 2; 8 bits signed: one unit = 2 / 127
    quantizer = InputQuantizer.for_interval((1,), 0.0, 1.0, mean=(0.5,), std=(0.25,))
    assert quantizer.signed
    assert quantizer.scale == pytest.approx(2 / 127)
    assert quantizer.quantize(np.array([[0.0], [0.5], [1.0], [0.6]])).ravel().tolist() == [
        -127,
        0,
        127,
        25,
    ]


def test_quantizer_never_clips():
    quantizer = InputQuantizer.for_interval((1,), 0.0, 1.0, levels=255)
    with pytest.raises(DataError, match="nothing is clipped"):
        quantizer.quantize(np.array([[1.01]]))
    with pytest.raises(DataError, match="NaN or infinity"):
        quantizer.quantize(np.array([[np.nan]]))
    with pytest.raises(DataError, match=r"found:   \(2,\)"):
        quantizer.quantize(np.zeros((3, 2)))
