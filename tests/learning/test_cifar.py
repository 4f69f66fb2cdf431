"""CIFAR and MNIST from the official files, written here by their documented layout."""

import io
import tarfile

import numpy as np
import pytest

from toolchain.errors import DataError
from toolchain.learning.data import open_split


def record(labels, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (3, 32, 32), np.uint8)
    return bytes(labels) + pixels.tobytes(), pixels


def cifar10_files():
    files, expected = {"batches.meta.txt": "\n".join("abcdefghij").encode() + b"\n\n"}, []
    for batch in range(1, 6):
        rows = [record([batch], 10 * batch), record([batch + 1], 10 * batch + 1)]
        files[f"data_batch_{batch}.bin"] = b"".join(r[0] for r in rows)
        expected += [r[1] for r in rows]
    files["test_batch.bin"] = record([9], 99)[0]
    return files, np.stack(expected)


def write(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_cifar10_folder_parent_and_archive(tmp_path):
    files, expected = cifar10_files()
    folder = write(tmp_path / "d" / "cifar-10-batches-bin", files)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-bin")
    for path in (folder, folder.parent, archive):
        data = open_split(f"cifar10:{path}@train")
        assert np.array_equal(data.samples, expected)
        assert data.labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
        assert data.class_names == tuple("abcdefghij")
        assert open_split(f"cifar10:{path}").labels.tolist() == [9]


def test_cifar100_uses_the_fine_label(tmp_path):
    row, pixels = record([3, 77], 5)
    names = "\n".join(f"c{i}" for i in range(100)).encode()
    write(tmp_path / "c", {"train.bin": row, "test.bin": row, "fine_label_names.txt": names})
    data = open_split(f"cifar100:{tmp_path}/c@train")
    assert data.labels.tolist() == [77]
    assert np.array_equal(data.samples[0], pixels)


def test_pickles_are_refused_with_the_reason(tmp_path):
    write(tmp_path / "p", {"data_batch_1": b"\x80\x02", "batches.meta": b"\x80\x02"})
    with pytest.raises(DataError, match="unpickling runs code"):
        open_split(f"cifar10:{tmp_path}/p@train")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"\x80\x02"))
    with pytest.raises(DataError, match="unpickling runs code"):
        open_split(f"cifar10:{archive}@train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_batch_3.bin": None}, r"data_batch_3.bin is missing"),
        ({"data_batch_3.bin": b"123"}, "not a whole number of records"),
        ({"data_batch_3.bin": b""}, "not a whole number of records"),
        ({"batches.meta.txt": None}, "batches.meta.txt is missing"),
        ({"batches.meta.txt": b"a\nb\n"}, "wrong number of class names"),
        ({"data_batch_3.bin": record([200], 1)[0]}, "a label has no class"),
    ],
)
def test_damaged_cifar(tmp_path, change, message):
    files, _ = cifar10_files()
    files = {k: v for k, v in {**files, **change}.items() if v is not None}
    with pytest.raises(DataError, match=message):
        open_split(f"cifar10:{write(tmp_path / 'c', files)}@train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar10", "a path is needed"),
        ("cifar100:/nowhere", "no such folder or archive"),
        ("mnist", "IDX files is needed"),
        ("mnist:/nowhere", "IDX files is needed"),
    ],
)
def test_missing_sources(text, message):
    with pytest.raises(DataError, match=message):
        open_split(text)


def test_a_broken_archive(tmp_path):
    (tmp_path / "c.tar.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="readable tar archive"):
        open_split(f"cifar10:{tmp_path}/c.tar.gz")


def test_mnist(tmp_path):
    images = np.arange(28 * 28, dtype=np.uint8).reshape(1, 28, 28)
    header = bytes((0, 0, 8, 3)) + np.array([1, 28, 28], ">u4").tobytes()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(
        bytes((0, 0, 8, 1)) + np.array([1], ">u4").tobytes() + bytes((7,))
    )
    data = open_split(f"mnist:{tmp_path}@test")
    assert data.labels.tolist() == [7]
    assert data.class_names[7] == "7"
