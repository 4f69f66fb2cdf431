"""Recordings of event cameras: every format, their frames, and every way they can be wrong."""

import json

import dv_processing as dv
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spikeport
from tests.command_line import here
from tests.event_files import (
    FIELDS,
    SUFFIXES,
    WRITERS,
    bin_file,
    dat_file,
    evt2_file,
    evt3_file,
    frames_of,
    moving_square,
)
from toolchain.errors import DataError
from toolchain.learning.data import input_spikes, open_split, parse_source
from toolchain.learning.data.event_files import read_events
from toolchain.learning.data.frames import Binning

FACTORY = """
import torch, spikeport
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2), spikeport.QCFS(4), nn.Flatten(), nn.Linear(256, 4)
    )
"""


def assert_read(path, expected, size):
    found = read_events(path)
    for name in ("t", "x", "y"):
        assert np.array_equal(getattr(found, name), expected[name]), name
    assert np.array_equal(found.on, expected["p"] == 1)
    assert found.size == size


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("direction", range(4))
def test_every_event_of_every_format(form, direction, tmp_path):
    events = moving_square(direction)
    path = tmp_path / f"a{SUFFIXES[form]}"
    path.write_bytes(WRITERS[form](events))
    assert_read(path, events, None if form == "bin" else (34, 34))


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 1 << 22), st.integers(0, 200), st.integers(0, 200), st.integers(0, 1)
        ),
        min_size=1,
        max_size=60,
    ),
    form=st.sampled_from(sorted(WRITERS)),
)
def test_events_at_any_time_and_place(rows, form, tmp_path_factory):
    """Neighbours of one time and row become vectors of EVT 3.0."""
    rows = sorted(rows + [(t, x + 1, y, p) for t, x, y, p in rows])
    events = np.array(rows, FIELDS)
    path = tmp_path_factory.mktemp("events") / f"a{SUFFIXES[form]}"
    path.write_bytes(WRITERS[form](events))
    found = read_events(path)
    assert np.array_equal(np.stack([found.t, found.x, found.y, found.on]).T, [[*r] for r in rows])


def test_hand_written_bytes(tmp_path):
    """Each format once by hand: an event at x 3, y 2, brighter, at 70,000 us."""
    wanted = np.array([(70_000, 3, 2, 1)], FIELDS)
    (tmp_path / "a.bin").write_bytes(bytes([3, 2, 0x81, 0x11, 0x70]))
    assert_read(tmp_path / "a.bin", wanted, None)
    body = bytes.fromhex("00087011010003800010")
    (tmp_path / "a.dat").write_bytes(b"% Width 9\n% Height 5\n" + body)
    assert_read(tmp_path / "a.dat", wanted, (9, 5))
    # 70,000 = 1093 * 64 + 48 = 17 * 4096 + 368
    words = [0x80000000 | 1093, 0x10000000 | 48 << 22 | 3 << 11 | 2]
    data = b"% format EVT2;width=9;height=5\n" + np.array(words, "<u4").tobytes()
    (tmp_path / "a.raw").write_bytes(data)
    assert_read(tmp_path / "a.raw", wanted, (9, 5))
    words = [0x8000 | 17, 0x6000 | 368, 0x0002, 0x2800 | 3]
    data = b"% evt 3.0\n" + np.array(words, "<u2").tobytes()
    (tmp_path / "a.raw").write_bytes(data)
    assert_read(tmp_path / "a.raw", wanted, None)


def test_times_that_begin_anew(tmp_path):
    """N-Caltech101 marks 2^13 us by a row of 240; EVT 3.0 counts 24 bits."""
    marks = bytes([0, 240, 0, 0, 0])
    data = (
        bytes([1, 1, 0x80, 0, 9]) + marks + bytes([2, 1, 0, 0, 5]) + marks + bytes([3, 1, 0, 0, 6])
    )
    (tmp_path / "a.bin").write_bytes(data)
    wanted = np.array([(9, 1, 1, 1), (8192 + 5, 2, 1, 0), (16384 + 6, 3, 1, 0)], FIELDS)
    assert_read(tmp_path / "a.bin", wanted, None)
    words = [0x8FFF, 0x6FFF, 0x0001, 0x2801, 0x8000, 0x6002, 0x2802]
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + np.array(words, "<u2").tobytes())
    wanted = np.array([((1 << 24) - 1, 1, 1, 1), ((1 << 24) + 2, 2, 1, 1)], FIELDS)
    assert_read(tmp_path / "a.raw", wanted, None)
    # A new upper part has a lower part of 0 until one comes; the same one again changes nothing.
    words = [0x8001, 0x6005, 0x0001, 0x2801, 0x8001, 0x2802, 0x8002, 0x2803]
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + np.array(words, "<u2").tobytes())
    wanted = np.array([(4101, 1, 1, 1), (4101, 2, 1, 1), (8192, 3, 1, 1)], FIELDS)
    assert_read(tmp_path / "a.raw", wanted, None)


def test_what_a_camera_sends_before_its_first_time_is_told(tmp_path, caplog):
    words = [0x0001, 0x2801, 0x8001, 0x2802, 0x4FFF, 0x6002, 0x3803, 0x5003]
    (tmp_path / "a.raw").write_bytes(b"% evt 3.0\n" + np.array(words, "<u2").tobytes())
    wanted = np.array([(4096, 2, 1, 1), (4098, 3, 1, 1), (4098, 4, 1, 1)], FIELDS)
    assert_read(tmp_path / "a.raw", wanted, None)
    assert "2 words of events before the first time and place left out" in caplog.text
    words = [0x00000801, 0x80000001, 0x00000802]
    (tmp_path / "b.raw").write_bytes(b"% evt 2.0\n" + np.array(words, "<u4").tobytes())
    assert_read(tmp_path / "b.raw", np.array([(64, 1, 2, 0)], FIELDS), None)
    assert "1 words of events" in caplog.text


@pytest.mark.parametrize("minus", [0, -1])
def test_arrays(minus, tmp_path):
    events = moving_square(1)
    named = {name: events[name] for name in events.dtype.names}
    named["p"] = np.where(events["p"] == 1, 1, minus)
    np.savez(tmp_path / "a.npz", **named)
    assert_read(tmp_path / "a.npz", events, None)
    np.save(tmp_path / "a.npy", events)
    assert_read(tmp_path / "a.npy", events, None)


BINNINGS = {
    "frames=7": lambda index, t, first, last: (t - first) * 7 // (last - first + 1),
    "frames=7,window=4500": lambda index, t, first, last: (t - first) // 4500,
    "frames=6,count=80": lambda index, t, first, last: index // 80,
    "frames=5,window=3000,cut": lambda index, t, first, last: (t - first) // 3000,
    "frames=5,count=60,cut": lambda index, t, first, last: index // 60,
}


@pytest.mark.parametrize("down", [1, 2, 17])
@pytest.mark.parametrize("text", BINNINGS)
def test_frames_are_the_plain_loop(text, down, tmp_path):
    events = moving_square(2)
    (tmp_path / "a.dat").write_bytes(dat_file(events))
    binning = Binning.parse(f"{text},down={down}", "events")
    found = binning.binned(read_events(tmp_path / "a.dat"), (34, 34), "events")
    first, last = int(events["t"][0]), int(events["t"][-1])

    def frame_of(index, t):
        return BINNINGS[text](index, t, first, last)

    expected = frames_of(events, binning.frames, (34, 34), frame_of, down)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    if "cut" not in text:
        assert found.sum() == len(events)


@pytest.fixture
def folder(tmp_path):
    """Squares that move four ways, in four formats."""
    names = ("right", "left", "down", "up")
    for split, count in (("train", 8), ("test", 2)):
        for direction, name in enumerate(names):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            for index in range(count):
                form = ("dat", "raw2", "raw3")[index % 3]
                file = tmp_path / "d" / split / name / f"{index}{SUFFIXES[form]}"
                events = moving_square(direction, seed=index, start=1000 * index)
                file.write_bytes(WRITERS[form](events))
    return tmp_path / "d"


def test_a_folder_of_classes(folder):
    data = open_split(f"events:{folder},frames=8,down=2@train[:5]")
    assert data.class_names == ("down", "left", "right", "up")
    assert data.sample_shape == (8, 2, 17, 17)
    assert data.labels.tolist() == [0, 1, 2, 3, 0]
    assert data.name == f"events:{folder},frames=8,down=2@train[0:5]"
    events = moving_square(1)
    first, last = int(events["t"][0]), int(events["t"][-1])
    expected = frames_of(events, 8, (34, 34), lambda _, t: (t - first) * 8 // (last - first + 1), 2)
    assert np.array_equal(data.samples[1], expected)
    assert len(open_split(f"events:{folder},frames=8")) == 8


def test_nmnist(tmp_path):
    for split in ("Train", "Test"):
        for digit in range(2):
            (tmp_path / split / str(digit)).mkdir(parents=True)
            data = bin_file(moving_square(digit, seed=len(split)))
            (tmp_path / split / str(digit) / "00001.bin").write_bytes(data)
    found = open_split(f"nmnist:{tmp_path},frames=10@train")
    assert found.sample_shape == (10, 2, 34, 34)
    assert found.class_names == ("0", "1")
    assert found.samples.sum() == 2 * len(moving_square(0))
    with pytest.raises(DataError, match="34x34 pixels"):
        open_split(f"nmnist:{tmp_path},frames=10,size=28x28")


def test_the_grammar(tmp_path):
    source = parse_source("events:a,b/c,frames=10,window=5000,cut@test[2:5]")
    assert (str(source.path), source.options) == ("a,b/c", "frames=10,window=5000,cut")
    assert source.base == "events:a,b/c,frames=10,window=5000,cut"
    assert (source.split, source.start, source.stop) == ("test", 2, 5)
    assert parse_source("npz:a,frames=3").options == ""


@pytest.mark.parametrize(
    "options",
    [
        "",
        "window=500",
        "frames=0",
        "frames=x",
        "frames=70000",
        "frames=4,frames=4",
        "frames=4,window=9,count=9",
        "frames=4,window=0",
        "frames=4,down=0",
        "frames=4,denoise=0",
        "frames=4,denoise",
        "frames=4,size=34",
        "frames=4,size=0x34",
        "frames=4,speed=9",
        "frames=-4",
    ],
)
def test_binnings_that_cannot_be_meant(folder, options):
    with pytest.raises(DataError, match=r"no such binning|frames of the events are not said"):
        open_split(f"events:{folder},{options}" if options else f"events:{folder}")


def changed(folder, name, data):
    for path in folder.rglob("*.*"):
        path.unlink()
    (folder / "test" / "up" / name).write_bytes(data)
    return f"events:{folder},frames=4"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.dat", dat_file(moving_square(0))[:-3], "truncated"),
        ("a.bin", bin_file(moving_square(0))[:-1], "truncated"),
        ("a.raw", evt2_file(moving_square(0))[:-2], "truncated"),
        ("a.raw", evt3_file(moving_square(0))[:-1], "truncated"),
        ("a.dat", dat_file(moving_square(0)[::-1]), r"(?s)time runs backwards.*event 1 at"),
        ("a.dat", dat_file(moving_square(0)[:0]), "has no events"),
        ("a.dat", dat_file(moving_square(0), (20, 34)), r"(?s)outside the sensor.*x = .*0 .. 19"),
        ("a.dat", dat_file(moving_square(2), (34, 20)), r"(?s)outside the sensor.*y = .*0 .. 19"),
        ("a.bin", bin_file(moving_square(0)), "does not state the size of the sensor"),
        ("a.raw", b"% evt 4.0\n" + bytes(8), r"(?s)unknown encoding.*4.0"),
        ("a.raw", bytes(8), r"(?s)unknown encoding.*none"),
        ("a.raw", b"% evt 3.0\n% geometry 9by9\n" + bytes(8), "size of the sensor is none"),
        ("a.dat", bytes(18), "begins with a header"),
        ("a.dat", b"% Width 9\n", "unknown events"),
        ("a.dat", b"% Width 9\n" + bytes([0, 4]) + bytes(8), "unknown events"),
        ("a.dat", b"% Width 9\n" + bytes([0, 8]) + bytes(7) + b"\x20", "polarity"),
        ("a.npz", b"no zip", "not a readable file of arrays"),
        ("a.npy", b"no array", "not a readable file of arrays"),
        ("a.txt", b"", "no event files"),
    ],
)
def test_files_that_are_wrong(folder, name, data, message):
    with pytest.raises(DataError, match=message):
        open_split(changed(folder, name, data))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"t": [1], "x": [1], "y": [1]}, "arrays are missing"),
        ({"t": [1], "x": [1], "y": [1], "p": [0.5]}, "are integers"),
        ({"t": [1], "x": [1, 2], "y": [1], "p": [1]}, "one of each per event"),
        ({"t": [1, 2], "x": [1, 2], "y": [1, 1], "p": [0, 2]}, "a polarity is"),
        ({"t": [1, 2], "x": [1, -2], "y": [1, 1], "p": [0, 1]}, "outside the sensor"),
    ],
)
def test_arrays_that_are_wrong(folder, arrays, message):
    source = changed(folder, "a.npz", b"")
    np.savez(folder / "test" / "up" / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_split(f"{source},size=9x9")


def aedat4_file(path, packets, size=(34, 30)):
    """A file that iniVation's own library writes, with a packet of events for each list."""
    config = dv.io.MonoCameraWriter.Config("camera")
    config.addEventStream(size)
    writer = dv.io.MonoCameraWriter(str(path), config)
    for packet in packets:
        store = dv.EventStore()
        for t, x, y, on in packet:
            store.push_back(t, x, y, on)
        writer.writeEvents(store)
    del writer
    return path


PACKETS = [
    [(1_600_000_000_000_000, 1, 2, True), (1_600_000_000_000_005, 33, 29, False)],
    [(1_600_000_000_012_000, 4, 0, True)],
]
TABLE = slice(54, 62)
"""Where a file of this library states the place of the table behind its packets."""


def test_files_of_inivation(tmp_path):
    found = read_events(aedat4_file(tmp_path / "a.aedat4", PACKETS))
    expected = [event for packet in PACKETS for event in packet]
    assert list(zip(found.t, found.x, found.y, found.on, strict=True)) == expected
    assert found.size == (34, 30)


def test_damaged_files_of_inivation(tmp_path):
    """Every way to cut a file off within its packets is noticed, also between two of them."""
    data = aedat4_file(tmp_path / "a.aedat4", PACKETS).read_bytes()
    table = int.from_bytes(data[TABLE], "little")
    assert len(data) - 200 < table < len(data)
    cut = tmp_path / "b.aedat4"
    told = set()
    for length in range(table + 1):
        cut.write_bytes(data[:length])
        with pytest.raises(DataError) as raised:
            read_events(cut)
        told.add(raised.value.message)
    assert told == {"not a readable AEDAT 4 file", "the file is truncated"}
    cut.write_bytes(b"#!AER-DAT3.1" + data[12:])
    with pytest.raises(DataError, match="does not begin with"):
        read_events(cut)


def test_a_recording_of_inivation_that_was_not_ended(tmp_path, caplog):
    """A camera that was unplugged leaves no table behind the packets; the header says -1."""
    path = aedat4_file(tmp_path / "a.aedat4", PACKETS)
    data = path.read_bytes()
    table = int.from_bytes(data[TABLE], "little")
    unknown = (-1).to_bytes(8, "little", signed=True)
    path.write_bytes(data[: TABLE.start] + unknown + data[TABLE.stop : table])
    assert len(read_events(path).t) == 3
    assert "was not ended" in caplog.text


def test_recordings_of_another_sensor(folder):
    with pytest.raises(DataError, match="of another sensor"):
        open_split(f"events:{folder},frames=4,size=30x30")
    (folder / "test" / "up" / "9.dat").write_bytes(dat_file(moving_square(0), (64, 34)))
    with pytest.raises(DataError, match=r"(?s)one size of sensor.*64x34.*34x34"):
        open_split(f"events:{folder},frames=4")
    with pytest.raises(DataError, match="does not divide the sensor"):
        open_split(f"events:{folder},frames=4,down=4@train")


def test_nothing_is_lost_without_a_word(folder, caplog):
    with pytest.raises(DataError, match=r"(?s)behind the last frame.*4 frames, and .* are needed"):
        open_split(f"events:{folder},frames=4,window=1000")
    with pytest.raises(DataError, match="behind the last frame"):
        open_split(f"events:{folder},frames=4,count=10")
    with pytest.raises(DataError, match="too few events"):
        open_split(f"events:{folder},frames=40,count=100")
    assert not caplog.text
    open_split(f"events:{folder},frames=200")
    assert "frames have no events" in caplog.text
    with pytest.raises(DataError, match="a folder is needed"):
        open_split("events:nowhere,frames=4")
    with pytest.raises(DataError, match="no such format"):
        read_events(folder / "a.evt")


def test_more_events_than_a_byte_counts(folder):
    many = np.concatenate([moving_square(0)[:1]] * 256)
    source = changed(folder, "a.dat", dat_file(many))
    with pytest.raises(DataError, match=r"(?s)too many events in one place.*256.*<= 255"):
        open_split(source)
    (folder / "test" / "up" / "a.dat").write_bytes(dat_file(many[1:]))
    assert open_split(source).samples.max() == 255


def test_from_files_to_a_recording(folder, tmp_path, monkeypatch):
    """The same bits from files as from arrays of their frames."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FACTORY)
    source = f"events:{folder},frames=6,down=2"
    given = ("--input-per-step", "--calibrate", source)
    assert here("convert", "mine.py:net", *given, "-o", "a.net").exit_code == 0
    program = spikeport.load("a.net")
    assert program.provenance["integers"]["calibration"] == f"{source}@train"
    assert program.schedule.wake_steps == 6
    # A count is a graded spike of that size.
    assert (program.input.scale, program.input.range.high) == (1.0, 255)
    data = open_split(source)
    assert np.array_equal(input_spikes(program.input, data), data.samples)
    ended = here("run", "a.net", "--data", source, "--record", "counts", "-o", "a.npz", "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["accuracy"] is not None
    floats = data.samples.astype(np.float32)
    expected = spikeport.run(program, floats, record="counts")
    found = spikeport.Recording.load("a.npz")
    assert found.meta["data"] == f"{source}@test"
    assert np.array_equal(found.logits, expected.logits)
    refused = here("run", "a.net", "--data", f"events:{folder},frames=5,down=2", "-o", "b.npz")
    assert "for each wake step" in str(refused.error)
