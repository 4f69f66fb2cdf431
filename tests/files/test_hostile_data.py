"""Data sets and recordings as bad disks, other tools and bad neighbours leave them."""

import gzip
import io
import json
import os
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import ROOT
from tests.damage import damaged_bytes, damaged_document
from tests.networks import random_inputs, random_program
from tests.voc_files import write_voc
from toolchain.containers import ALWAYS_ALLOWED, read_npz
from toolchain.errors import DataError, RecordingError, SpikeportError
from toolchain.learning.data import Dataset, input_spikes, open_boxes, open_split
from toolchain.learning.data.idx import read_idx
from toolchain.learning.data.images import open_image
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, Recording, compare
from toolchain.simulator.reference import simulate

TRIES = 300
SECONDS, BYTES = 2.0, 500 << 20


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def png(mode="L", size=(4, 4), **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG", **options)
    return file.getvalue()


def zipped(members, how=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def damaged_zip(data, rng):
    """Damage of the file, or of one member inside a zip that is whole."""
    if rng.random() < 0.4:
        return damaged_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(sorted(members))
    if rng.random() < 0.1:
        del members[chosen]
    elif chosen == "meta.npy" and rng.random() < 0.8:
        meta = json.loads(str(np.load(io.BytesIO(members[chosen]))))
        text = np.array(json.dumps(damaged_document(meta, rng)))
        file = io.BytesIO()
        np.save(file, text)
        members[chosen] = file.getvalue()
    else:
        members[chosen] = damaged_bytes(members[chosen][:200], rng) + members[chosen][200:]
    return zipped(members)


def recording():
    program = random_program(2, "cif", schedule=Schedule(2, 1))
    return simulate(program, random_inputs(program, 2), mode=Mode.FULL)


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """By format: the bytes, how they are damaged, the file's name, and what reads it."""
    folder = tmp_path_factory.mktemp("bases")
    recording().save(folder / "r.npz")
    samples = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    data = npz(test_samples=samples, test_labels=np.arange(2), class_names=["a", "b"])
    idx = b"\0\0\x08\x03" + np.array([2, 4, 4], ">u4").tobytes() + bytes(32)
    images = {"test/a/1.png": png(), "test/b/1.png": png(), "train/a/1.jpg": png()}
    write_voc(folder / "voc", {"test": 1})
    annotation = next((folder / "voc").rglob("*.xml"))
    voc = zipped(
        {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in (folder / "voc").rglob("*")
            if p.is_file()
        }
    )
    rows = bytes(np.random.default_rng(0).integers(0, 10, 2 * 3073, np.uint8))
    names = "\n".join("abcdefghij").encode()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        for name, content in (("test_batch.bin", rows), ("batches.meta.txt", names)):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    def voc_folder(path):
        annotation.write_bytes(path.read_bytes())
        return open_boxes(f"voc:{folder / 'voc'}@test", (32, 32))

    return {
        "recording": ((folder / "r.npz").read_bytes(), damaged_zip, "f.npz", Recording.load),
        "npz": (data, damaged_zip, "f.npz", lambda p: open_split(f"npz:{p}@test")),
        "idx": (idx, damaged_bytes, "f", lambda p: read_idx(p, 3)),
        "idx.gz": (
            gzip.compress(idx),
            damaged_bytes,
            "f.gz",
            lambda p: read_idx(p.with_name("f"), 3),
        ),
        "images": (
            zipped(images),
            damaged_zip,
            "f.zip",
            lambda p: open_split(f"imagefolder:{p}@test"),
        ),
        "cifar": (
            tar.getvalue(),
            damaged_bytes,
            "f.tar.gz",
            lambda p: open_split(f"cifar10:{p}@test"),
        ),
        "voc": (voc, damaged_zip, "f.zip", lambda p: open_boxes(f"voc:{p}@test", (32, 32))),
        "voc xml": (annotation.read_bytes(), damaged_bytes, "f.xml", voc_folder),
    }


@pytest.mark.parametrize(
    "kind", ["recording", "npz", "idx", "idx.gz", "images", "cifar", "voc", "voc xml"]
)
def test_damaged_files_are_read_or_refused(bases, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEPORT_CACHE", str(tmp_path / "cache"))
    data, damage, name, read = bases[kind]
    read(written(tmp_path / name, data))
    rng = random.Random(kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    refused = 0
    for _ in range(TRIES):
        path = written(tmp_path / name, damage(data, rng))
        started = time.process_time()
        try:
            read(path)
        except SpikeportError:
            refused += 1
        assert time.process_time() - started < SECONDS
    assert refused > TRIES // 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < BYTES


def zeros_npz(path, count):
    """An `.npz` whose sample array is of zeros, packed to a thousandth."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (count, 1)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("test_samples.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            for _ in range(count >> 20):
                member.write(bytes(1 << 20))
        archive.writestr("test_labels.npy", npz(a=np.zeros(1, np.int64)))


def test_bombs(tmp_path):
    size = ALWAYS_ALLOWED + (64 << 20)
    zeros_npz(tmp_path / "a.npz", size)
    for read in (
        lambda: open_split(f"npz:{tmp_path / 'a.npz'}@test"),
        lambda: open_split(f"imagefolder:{tmp_path / 'a.npz'}@test"),
        lambda: open_boxes(f"voc:{tmp_path / 'a.npz'}@test", (32, 32)),
    ):
        with pytest.raises(DataError, match="unpack to"):
            read()
    with pytest.raises(RecordingError, match="unpack to"):
        Recording.load(tmp_path / "a.npz")
    header = b"\0\0\x08\x03" + np.array([1 << 31, 1 << 31, 4], ">u4").tobytes()
    written(tmp_path / "i.gz", gzip.compress(header + bytes(1000)))
    with pytest.raises(DataError, match="unpack to"):
        read_idx(tmp_path / "i", 3)
    written(tmp_path / "j", header + bytes(1000))
    with pytest.raises(DataError, match="does not fit the header"):
        read_idx(tmp_path / "j", 3)
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo("test_batch.bin")
        member.size = size
        with (tmp_path / "zeros").open("wb") as file:
            file.truncate(size)
        with (tmp_path / "zeros").open("rb") as file:
            archive.addfile(member, file)
    with pytest.raises(DataError, match="unpack to"):
        open_split(f"cifar10:{tmp_path / 't.tar.gz'}@test")


def test_what_compresses_well_but_is_small_is_read(tmp_path):
    zeros = np.zeros((1, 1, 2000, 2000), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", test_samples=zeros, test_labels=np.zeros(1, int))
    assert (tmp_path / "a.npz").stat().st_size < zeros.size / 500
    assert np.array_equal(open_split(f"npz:{tmp_path / 'a.npz'}@test").samples, zeros)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [">f4", "<f8", "|u1", "<i8", "|b1", "<U3"])
def test_arrays_are_as_numpy_reads_them(order, dtype, tmp_path):
    values = np.asarray(np.arange(12).reshape(3, 4), order=order).astype(dtype, order=order)
    path = written(tmp_path / "a.npz", npz(a=values, b=values[:0], c=values[0, 0]))
    with np.load(path) as expected:
        found = read_npz(path)
        assert list(found) == expected.files
        for name in expected.files:
            assert found[name].dtype == expected[name].dtype
            assert np.array_equal(found[name], expected[name])
            assert found[name].flags.writeable


def image_files():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n(x) (w) file\n%%EOF\n"
    animation = io.BytesIO()
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    bmp = io.BytesIO()
    Image.new("RGB", (4, 4)).save(bmp, "BMP")
    side = (65536).to_bytes(4, "little")
    large = bmp.getvalue()[:18] + side + side + bmp.getvalue()[26:]
    return {
        "another format": eps,
        "several frames": animation.getvalue(),
        "too large|damaged": large,
        "is damaged": png()[:40],
    }


@pytest.mark.parametrize("message", image_files())
def test_images_that_are_refused(message, tmp_path):
    data = image_files()[message]
    with pytest.raises(DataError, match=message), open_image(data, "x.png") as image:
        image.load()
    written(tmp_path / "a.zip", zipped({"test/a/1.png": data}))
    with pytest.raises(DataError, match=message):
        open_split(f"imagefolder:{tmp_path / 'a.zip'}@test")
    write_voc(tmp_path / "voc", {"test": 1})
    written(next(p for p in (tmp_path / "voc").rglob("*") if p.suffix in (".jpg", ".png")), data)
    with pytest.raises(DataError, match=message):
        open_boxes(f"voc:{tmp_path / 'voc'}@test", (32, 32))


def test_zips_that_cannot_be_unpacked(tmp_path):
    data = bytearray(zipped({"test/a/1.png": png()}))
    for place in (data.find(b"PK\3\4") + 6, data.find(b"PK\1\2") + 8):
        data[place] |= 1  # encrypted
    written(tmp_path / "a.zip", bytes(data))
    with pytest.raises(DataError, match="encrypted"):
        open_split(f"imagefolder:{tmp_path / 'a.zip'}@test")
    data = bytearray(zipped({"test/a/1.png": png()}))
    for place in (data.find(b"PK\3\4") + 8, data.find(b"PK\1\2") + 10):
        data[place] = 99
    written(tmp_path / "b.zip", bytes(data))
    with pytest.raises(DataError, match="compression"):
        open_split(f"imagefolder:{tmp_path / 'b.zip'}@test")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_all_at_once(how, tmp_path):
    written(tmp_path / "a.zip", zipped({"test/a/1.png": png()}, how))
    with pytest.raises(DataError, match="compression method"):
        open_split(f"imagefolder:{tmp_path / 'a.zip'}@test")


def class_folders(folder):
    for name in "abc":
        (folder / "test" / name).mkdir(parents=True)
        written(folder / "test" / name / "1.png", png())


def test_a_class_never_vanishes(tmp_path):
    class_folders(tmp_path / "d")
    assert open_split(f"imagefolder:{tmp_path / 'd'}@test").class_names == ("a", "b", "c")
    elsewhere = (tmp_path / "d" / "test" / "b").rename(tmp_path / "b")
    (tmp_path / "d" / "test" / "b").symlink_to(elsewhere)
    assert open_split(f"imagefolder:{tmp_path / 'd'}@test").class_names == ("a", "b", "c")
    elsewhere.rename(tmp_path / "gone")
    with pytest.raises(DataError, match="leads nowhere"):
        open_split(f"imagefolder:{tmp_path / 'd'}@test")
    (tmp_path / "d" / "test" / "b").unlink()
    (tmp_path / "d" / "test" / "b").symlink_to(tmp_path / "d")
    with pytest.raises(DataError, match="lies in itself"):
        open_split(f"imagefolder:{tmp_path / 'd'}@test")


UNREADABLE = """
import os, sys
from toolchain.learning.data import open_split
from toolchain.errors import DataError
if os.getuid() == 0:
    os.setuid(65534)
try:
    open_split(f"imagefolder:{sys.argv[1]}@test")
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("closed", ["d/test/b", "d", "."])
def test_an_unreadable_folder_is_an_error(closed):
    # Not in `tmp_path`: its parents let nobody else in, and root reads whatever it likes.
    with tempfile.TemporaryDirectory() as place:
        class_folders(Path(place, "d"))
        Path(place).chmod(0o755)
        Path(place, closed).chmod(0)
        try:
            run = subprocess.run(
                [sys.executable, "-c", UNREADABLE, str(Path(place, "d"))],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "SPIKEPORT_CACHE": str(Path(place, "none"))},
                cwd=ROOT,
            )
        finally:
            Path(place, closed).chmod(0o755)
    assert "cannot be read" in run.stdout, run.stderr


@pytest.mark.parametrize(
    "labels", [np.array([0, 2**62]), np.array([0, 2**64 - 1], np.uint64), np.array([0, -1])]
)
def test_labels_that_are_no_classes(labels, tmp_path):
    written(tmp_path / "a.npz", npz(test_samples=np.zeros((2, 3)), test_labels=labels))
    with pytest.raises(DataError, match="labels must be numbers of classes"):
        open_split(f"npz:{tmp_path / 'a.npz'}@test")


def test_float64_samples_are_kept(tmp_path):
    half = 0.5 + 2.0**-40  # becomes 0.5 in float32, and rounds to the even 2 instead of 3
    samples = np.array([[2 + half, 7.0]])
    written(tmp_path / "a.npz", npz(test_samples=samples, test_labels=np.zeros(1, int)))
    data = open_split(f"npz:{tmp_path / 'a.npz'}@test")
    assert np.array_equal(data.real(), samples)
    assert input_spikes(InputQuantizer((2,), 1.0, bits=3), data).tolist() == [[3, 7]]


def test_ranges_that_the_data_do_not_fill(caplog):
    """A pixel is 0 .. 1: in a network for 0 .. 255, all of them would be 0 or 1."""
    pixels = Dataset("p", np.full((1, 2), 255, np.uint8), 255, np.zeros(1, int), ("a",))
    with pytest.raises(DataError, match=r"pixels stand for[\s\S]*at most 1\n[\s\S]*std=1/255"):
        input_spikes(InputQuantizer.for_interval((2,), 0, 255), pixels)
    keras = InputQuantizer.for_interval((2,), 0, 1, std=(1 / 255,), levels=255)
    assert input_spikes(keras, pixels).tolist() == [[255, 255]]
    floats = replace(pixels, samples=np.array([[0.25, 1.0]]), pixel_max=None)
    assert input_spikes(InputQuantizer.for_interval((2,), 0, 255), floats).tolist() == [[0, 1]]
    assert "0.25 .. 1 become input spikes of at most 1 of 255" in caplog.text
    caplog.clear()
    input_spikes(InputQuantizer.for_interval((2,), 0, 4), floats)
    assert not caplog.text


@pytest.mark.parametrize("mode", list(Mode))
def test_recordings_lack_nothing(mode):
    """Whatever is taken out of either recording, they are not equal."""
    program = random_program(2, "cif", schedule=Schedule(2, 1))
    whole = simulate(program, random_inputs(program, 2), mode=mode)
    assert compare(whole, whole).equal
    for group in ("outputs", "spikes", "membrane", "counts", "digests", "spike_times"):
        for name in getattr(whole, group):
            rest = {k: v for k, v in getattr(whole, group).items() if k != name}
            less = replace(whole, **{group: rest})
            for pair in ((whole, less), (less, whole)):
                with pytest.raises(RecordingError):
                    compare(*pair)
    for change in (
        {"labels": whole.labels + 1},
        {"meta": {**whole.meta, "program_hash": "0"}},
    ):
        other = replace(whole, **change)
        assert not compare(whole, other).equal
        assert not compare(other, whole).equal
    needed = {"layers", "num_samples", "mode", "wake_steps"}
    if mode is Mode.EVENTS:  # the shapes of others are those of their arrays, as in the first files
        needed.add("shapes")
    for key in needed:
        less = replace(whole, meta={k: v for k, v in whole.meta.items() if k != key})
        for pair in ((whole, less), (less, whole)):
            with pytest.raises(RecordingError):
                compare(*pair)
