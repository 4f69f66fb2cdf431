"""DVS128 Gesture and CIFAR10-DVS, in the forms in which people have them."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.event_files import (
    FIELDS,
    aedat2_file,
    aedat3_file,
    aedat3_packet,
    frames_of,
    moving_square,
)
from toolchain.errors import DataError
from toolchain.learning.data import open_split
from toolchain.learning.data.event_files import read_events

DVS128 = (128, 128)
HEAD = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
SIGNAL = aedat3_packet([(0, 0, 0, 0)], kind=0)


def square(direction=0, seed=0, start=1000):
    return moving_square(direction, seed=seed, size=DVS128, start=start)


def assert_read(path, data, expected, size=DVS128):
    path.write_bytes(data)
    found = read_events(path)
    for name in ("t", "x", "y"):
        assert np.array_equal(getattr(found, name), expected[name]), name
    assert np.array_equal(found.on, expected["p"] == 1)
    assert found.size == size


def in_frames(events, count=4, down=1):
    """Frames of equal time, by a plain loop."""
    first, last = int(events["t"][0]), int(events["t"][-1])
    span = last - first + 1
    return frames_of(events, count, DVS128, lambda _, t: (t - first) * count // span, down)


@pytest.mark.parametrize("direction", range(4))
def test_every_event_of_aedat(direction, tmp_path):
    events = square(direction)
    assert_read(tmp_path / "a.aedat", aedat3_file(events), events)
    assert_read(tmp_path / "a.aedat", aedat3_file(events, camera="DAVIS240C"), events, None)
    assert_read(tmp_path / "a.aedat", aedat2_file(events), events)


def test_bytes_by_hand(tmp_path, caplog):
    """An event at x 3, y 2, brighter, at 70,000 us; as AEDAT 3.1 and as AEDAT 2.0."""
    wanted = np.array([(70_000, 3, 2, 1)], FIELDS)
    packet = bytes.fromhex("01000100 08000000 04000000 00000000 01000000 01000000 01000000")
    assert_read(tmp_path / "a.aedat", HEAD + packet + bytes.fromhex("0b000600 70110100"), wanted)
    # From the bottom the row 2 is 125: 125 << 8 | 3 << 1 | 0
    assert_read(
        tmp_path / "a.aedat", b"#!AER-DAT2.0\r\n" + bytes.fromhex("00007d06 00011170"), wanted
    )
    # The second turn of 31 bits; an event that the camera calls invalid; a signal of the plug.
    late = packet[:12] + struct.pack("<i", 1) + packet[16:]
    later = np.array([((1 << 31) + 70_000, 3, 2, 1)], FIELDS)
    assert_read(tmp_path / "a.aedat", HEAD + late + bytes.fromhex("0b000600 70110100"), later)
    data = HEAD + aedat3_packet([(1, 9, 9, 1)], valid=0) + aedat3_packet([(70_000, 3, 2, 1)])
    assert_read(tmp_path / "a.aedat", data, wanted)
    assert "1 events that the camera calls invalid left out" in caplog.text
    data = b"#!AER-DAT2.0\r\n" + struct.pack(">II", 1 << 15, 5)
    assert_read(tmp_path / "a.aedat", data + bytes.fromhex("00007d06 00011170"), wanted)
    assert "1 signals of the camera's plug left out" in caplog.text


AEDAT3, AEDAT2 = aedat3_file(square()), aedat2_file(square())


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, (1 << 31) - 1),
            st.integers(0, 127),
            st.integers(0, 127),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_events_at_any_time_and_place(rows, tmp_path_factory):
    events = np.array(sorted(rows), FIELDS)
    path = tmp_path_factory.mktemp("events") / "a.aedat"
    assert_read(path, aedat3_file(events, packet=7), events)
    assert_read(path, aedat2_file(events), events)


@settings(max_examples=150)
@given(
    whole=st.sampled_from([AEDAT3[:400], AEDAT2[:200]]),
    changes=st.dictionaries(st.integers(0, 399), st.integers(0, 255), max_size=4),
    length=st.integers(0, 400),
)
def test_damaged_files_are_refused_or_read(whole, changes, length, tmp_path_factory):
    data = bytearray(whole)
    for place, value in changes.items():
        data[place % len(data)] = value
    path = tmp_path_factory.mktemp("events") / "a.aedat"
    path.write_bytes(data[:length])
    try:
        found = read_events(path)
    except DataError:
        return
    assert len(found.t) == len(found.x) == len(found.y) == len(found.on)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (AEDAT3[:-1], "truncated"),
        (AEDAT3[: -8 * 30 - 10], "truncated"),
        (HEAD + SIGNAL[:20], r"(?s)truncated.*20 bytes"),
        (HEAD, r"(?s)no packets of events of pixels.*none"),
        (HEAD + SIGNAL, r"(?s)no packets of events of pixels.*kind 0"),
        (HEAD + aedat3_packet([(1, 1, 1, 1)], kind=40), r"(?s)no packet of events.*kind 40"),
        (HEAD + aedat3_packet([], size=-8), "no packet of events"),
        (HEAD + aedat3_packet([], size=0), r"(?s)unknown events.*0 bytes"),
        (HEAD + SIGNAL[:16] + b"\2" + SIGNAL[17:], r"(?s)no packet of events.*room for 2"),
        (HEAD + aedat3_packet([(1, 1, 1, 1)], size=16), r"(?s)unknown events.*16 bytes"),
        (HEAD.replace(b"RAW", b"PNG") + SIGNAL, "unknown packets"),
        (aedat3_file(square()[::-1]), "time runs backwards"),
        (aedat3_file(np.array([(1, 128, 1, 1)], FIELDS)), r"(?s)outside the sensor.*x = 128"),
        (aedat3_file(np.array([(1, 1, 130, 1)], FIELDS)), r"(?s)outside the sensor.*y = 130"),
        (AEDAT2[:-3], "truncated"),
        (aedat2_file(square()[::-1]), "time runs backwards"),
        (aedat2_file(square(), "eu.seebetter.ini.chips.davis.Davis240C"), "unknown camera"),
        (b"#!AER-DAT2.0\r\n" + bytes([1, 0, 0, 0, 0, 0, 0, 1]), "no address of a DVS128"),
        (b"#!AER-DAT2.0\r\n", "has no events"),
        (b"#!AER-DAT4.0\r\n", r"(?s)unknown version.*4.0"),
        (b"", r"(?s)unknown version.*no line"),
        (AEDAT2[14:], r"(?s)unknown version.*no line"),
    ],
)
def test_wrong_files_of_aedat(tmp_path, data, message):
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a" / "a.aedat").write_bytes(data)
    with pytest.raises(DataError, match=message):
        open_split(f"events:{tmp_path},frames=4")


CSV = "class,startTime_usec,endTime_usec\n"


def write_trial(folder, name, gestures):
    """A recording with gestures (class, events) one after another, each of 28 ms, and its table."""
    rows, table = [], CSV
    for kind, events in gestures:
        rows.append(events)
        table += f"{kind},{events['t'][0]},{events['t'][-1] + 1}\n"
    noise = np.array([(rows[-1]["t"][-1] + 90, 5, 5, 1)], FIELDS)
    (folder / f"{name}.aedat").write_bytes(aedat3_file(np.concatenate([*rows, noise])))
    (folder / f"{name}_labels.csv").write_text(table)
    return rows


@pytest.fixture
def gestures(tmp_path):
    """The published layout: two recordings for training, one for the test."""
    folder = tmp_path / "DvsGesture"
    folder.mkdir()
    for number, name in enumerate(("user01_led", "user02_lab", "user24_led")):
        kinds = [(1 + number, square(0, number, 1000)), (11, square(1, number, 50_000))]
        write_trial(folder, name, kinds)
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_lab.aedat\n\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\r\n")
    return folder


def test_gestures_as_published(gestures):
    train = open_split(f"dvsgesture:{gestures},frames=4,down=4@train")
    test = open_split(f"dvsgesture:{gestures},frames=4@test")
    assert train.sample_shape == (4, 2, 32, 32)
    assert train.labels.tolist() == [0, 10, 1, 10]
    assert test.labels.tolist() == [2, 10]
    assert (len(test.class_names), test.class_names[2]) == (11, "left hand wave")
    for index, events in enumerate((square(0, 2, 1000), square(1, 2, 50_000))):
        assert np.array_equal(test.samples[index], in_frames(events))
    assert np.array_equal(train.samples[0], in_frames(square(0, 0, 1000), down=4))
    assert test.name == f"dvsgesture:{gestures},frames=4@test"


def test_gestures_that_overlap_are_told(gestures, caplog):
    """As in a published table, of user22_led: events are in both gestures."""
    first, second = square(0, 2, 1000), square(1, 2, 50_000)
    end = int(second["t"][9])
    table = f"{CSV}3,{first['t'][0]},{end}\n11,{second['t'][0]},{second['t'][-1] + 1}\n"
    (gestures / "user24_led_labels.csv").write_text(table)
    found = open_split(f"dvsgesture:{gestures},frames=4")
    assert found.samples[0].sum() == len(first) + (second["t"] < end).sum()
    assert np.array_equal(found.samples[1], in_frames(second))
    assert f"ends at {end} us, behind the begin of class 11 at {second['t'][0]} us" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / "user24_led.aedat").unlink(), "a recording is missing"),
        (lambda d: (d / "user24_led_labels.csv").unlink(), "not a readable table of labels"),
        (lambda d: (d / "user24_led_labels.csv").write_text("a,b\n1,2\n"), "not a table of labels"),
        (lambda d: (d / "user24_led_labels.csv").write_text(CSV + "1,x,3\n"), "not a readable"),
        (lambda d: (d / "user24_led_labels.csv").write_text(CSV + "12,1,3\n"), "(?s)class 12"),
        (lambda d: (d / "user24_led_labels.csv").write_text(CSV + "1,3,3\n"), "no gesture"),
        (lambda d: (d / "user24_led_labels.csv").write_text(CSV + "1,1,2\n"), "has no events"),
        (lambda d: (d / "user24_led_labels.csv").write_text(CSV), "no recordings"),
        (lambda d: (d / "trials_to_test.txt").write_text(""), "no recordings"),
        (lambda d: (d / "trials_to_test.txt").unlink(), "not a folder of DVS128 Gesture"),
        (
            lambda d: (d / "user24_led.aedat").write_bytes(aedat3_file(square()[::-1])),
            "time runs backwards",
        ),
        (lambda d: (d / "user24_led.aedat").write_bytes(AEDAT3[:-1]), "truncated"),
    ],
)
def test_wrong_gestures(gestures, change, message):
    change(gestures)
    with pytest.raises(DataError, match=message):
        open_split(f"dvsgesture:{gestures},frames=4")
    with pytest.raises(DataError, match="128x128 pixels"):
        open_split(f"dvsgesture:{gestures},frames=4,size=34x34@train")
    with pytest.raises(DataError, match="a folder is needed"):
        open_split(f"dvsgesture:{gestures}/none,frames=4")


def tonic_array(events):
    """x, y, polarity and milliseconds, float64 (E, 4)."""
    columns = (events["x"], events["y"], events["p"], events["t"] / 1000)
    return np.stack(columns, axis=1).astype(np.float64)


@pytest.fixture
def stored(tmp_path):
    """The layout that tonic stores."""
    folder = tmp_path / "DVSGesture"
    for trial in ("ibmGestureTrain/user01_led", "ibmGestureTest/user24_lab"):
        (folder / trial).mkdir(parents=True)
        for kind in (0, 2, 10):
            np.save(folder / trial / f"{kind}.npy", tonic_array(square(kind % 4, kind)))
    return folder


def test_gestures_as_tonic_stores_them(stored):
    found = open_split(f"dvsgesture:{stored},frames=4@test")
    assert found.labels.tolist() == [0, 2, 10]
    for index, kind in enumerate((0, 2, 10)):
        assert np.array_equal(found.samples[index], in_frames(square(kind % 4, kind)))
    assert open_split(f"dvsgesture:{stored},frames=4@train").labels.tolist() == [0, 2, 10]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3)), "not an array of x, y, polarity and time"),
        (np.zeros(3, [("x", "<i4"), ("y", "<i4")]), "not an array of x, y, polarity and time"),
        (np.array([[1.5, 1, 1, 1]]), "are whole numbers"),
        (np.array([[1, 1, 1, np.nan]]), "are whole numbers"),
        (np.array([[1, 1, 2, 1.0]]), "a polarity is 0 or 1"),
        (np.array([[1, 1, 1, 2.0], [1, 1, 1, 1.0]]), "time runs backwards"),
        (np.array([[1, 128, 1, 1.0]]), "outside the sensor"),
        (np.zeros((0, 4)), "has no events"),
    ],
)
def test_wrong_arrays_of_gestures(stored, array, message):
    np.save(stored / "ibmGestureTest" / "user24_lab" / "0.npy", array)
    with pytest.raises(DataError, match=message):
        open_split(f"dvsgesture:{stored},frames=4")


def test_other_names_of_gestures(stored):
    place = stored / "ibmGestureTest" / "user24_lab"
    (place / "0.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="not a readable file of arrays"):
        open_split(f"dvsgesture:{stored},frames=4")
    (place / "0.npy").rename(place / "clapping.npy")
    with pytest.raises(DataError, match=r"(?s)the name is no class.*clapping"):
        open_split(f"dvsgesture:{stored},frames=4")


ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
CLASSES = ("airplane", "automobile", *ANIMALS, "ship", "truck")


def turned(events):
    """As the camera saw an upright scene: x and y of the sensor, whose rows count from the top."""
    turned = events.copy()
    turned["x"], turned["y"] = 127 - events["y"], events["x"]
    return turned


@pytest.fixture
def images(tmp_path):
    """Eleven files of AEDAT 2.0 in each class; names sort by their numbers, not by letters."""
    for number, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        for index in range(11):
            file = tmp_path / name / f"cifar10_{name}_{index}.aedat"
            file.write_bytes(aedat2_file(turned(square(number % 4, index))))
    return tmp_path


def test_cifar10dvs(images):
    train = open_split(f"cifar10dvs:{images},frames=4,down=4@train")
    test = open_split(f"cifar10dvs:{images},frames=4@test")
    assert train.class_names == CLASSES
    assert (len(train), len(test)) == (90, 20)
    assert test.labels.tolist() == [*range(10)] * 2
    for index in (0, 3, 10, 17):
        kind, file = index % 10, 9 + index // 10
        assert np.array_equal(test.samples[index], in_frames(square(kind % 4, file)))
    assert np.array_equal(train.samples[11], in_frames(square(1, 1), down=4))


def test_cifar10dvs_as_arrays_stays_as_it_is(images):
    for name in CLASSES:
        for file in (images / name).iterdir():
            file.unlink()
        for index in range(2):
            events = square(0, index)
            arrays = {field: events[field] for field in events.dtype.names}
            np.savez(images / name / f"cifar10_{name}_{index}.npz", **arrays)
    test = open_split(f"cifar10dvs:{images},frames=4")
    assert len(test) == 10
    assert np.array_equal(test.samples[4], in_frames(square(0, 1)))


def test_wrong_cifar10dvs(images):
    source = f"cifar10dvs:{images},frames=4"
    (images / "cat" / "cifar10_cat_10.aedat").write_bytes(AEDAT2[:-1])
    with pytest.raises(DataError, match="truncated"):
        open_split(source)
    (images / "cat" / "cifar10_cat_10.aedat").rename(images / "cat" / "last.aedat")
    with pytest.raises(DataError, match="does not end in its number"):
        open_split(source)
    for file in (images / "dog").iterdir():
        file.unlink()
    (images / "cat" / "last.aedat").unlink()
    with pytest.raises(DataError, match=r"(?s)dog.*too few event files.*0"):
        open_split(source)
    (images / "dog.zip").touch()
    with pytest.raises(DataError, match=r"unpack dog.zip here"):
        open_split(source)
