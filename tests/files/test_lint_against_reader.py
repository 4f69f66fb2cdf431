"""Whatever the reader of lava-dl's files refuses, lint names as an error: one change at a time."""

import shutil

import h5py
import numpy as np
import pytest

from exports.netx.cuba_reader import read_cuba_net
from exports.netx.lint.check_file import look_at
from exports.netx.stock_layers import NoInputShape
from exports.netx.stock_loader import ELSEWHERE
from tests.netx_files import put, put_neuron, stock_file
from toolchain.errors import SpikeportError

TYPES = ("c8", "S4", "V4", "i4,i4", "f2", "?")
VARIABLE = (h5py.vlen_dtype("i4"), h5py.string_dtype())
VALUES = (np.nan, 0.5, -1, 0, 200, 5000, 70000, 1 << 24, 2.0**31, 1e300)
WORDS = ("input", "conv", "dense", "flatten", "SDNN", "RF", "ALIF", "dense_rec", "pool", "")
NAMES = ("x", "weight", "bias", "delay", "neuron", "groups", "messageBits", "weight_rec", "theta")
"""Of datasets and groups that are put where they may not belong."""


def whole_file(path):
    """A file that says all that may be said."""
    stock_file(path)
    with h5py.File(path, "r+") as file:
        layers = file["layer"]
        put_neuron(layers["0"])
        put(layers["0"], "weight", 64)
        put(layers["0"], "bias", 0)
        put(layers["3"], "delay", np.ones((3, 120), int))
        put(layers["3"], "inFeatures", 120)
        put_neuron(layers["3"], refDelay=1, gradedSpike=0, wgtExp=0, theta=1.0)
    return path


def stands_for(name, value, dtype=None):
    """Put `value` in the place of `name`."""

    def change(file):
        del file[name]
        file.create_dataset(name, data=value, dtype=dtype)

    return change


def of_variable_length(name, shape, dtype):
    def change(file):
        del file[name]
        file.create_dataset(name, shape, dtype)

    return change


def other_arrays(value):
    """The value in other types, shapes and numbers, by what was done."""
    for kind in TYPES:
        numbers = kind in ("c8", "f2", "?")
        yield f"as {kind}", value.astype(kind) if numbers else np.zeros(value.shape, kind)
    yield "with an axis more", value[..., None]
    yield "twice", np.stack([value, value], -1)
    yield "flat", value.reshape(-1)
    yield "empty", np.zeros((0, *value.shape))
    if value.size > 1:
        yield "short", value[:-1]
        yield "one", value.reshape(-1)[0]
        yield "turned", value.T
    for number in VALUES:
        changed = value.astype(float)
        changed.reshape(-1)[0] = number
        yield f"first {number}", changed
    yield "all 300", np.full(value.shape, 300.0)


def changes_of_dataset(name, value):
    yield "removed", lambda file: file.pop(name)
    yield "no values", stands_for(name, h5py.Empty("f4"))
    if value.dtype.kind == "S":
        for word in WORDS:
            yield word, stands_for(name, np.array([word.encode()], "S10"))
        yield "two words", stands_for(name, np.array([b"dense"] * 2))
        yield "a number", stands_for(name, 3)
        return
    for dtype in VARIABLE:
        yield f"as {dtype}", of_variable_length(name, value.shape, dtype)
    for what, other in other_arrays(value):
        yield what, stands_for(name, other)

    def parts(file):
        del file[name]
        file[f"{name}/real"] = file[f"{name}/imag"] = value

    yield "complex", parts


def changes_of_group(name):
    for more in NAMES:
        yield f"{more} added", lambda file, more=more: file[name].require_dataset(more, (), "i4")
        yield f"group {more} added", lambda file, more=more: file[name].require_group(more)
    yield "removed", lambda file: file.pop(name)
    yield "a dataset", stands_for(name, 1)


def changes(path, group):
    """(place, what is done there, how) for every place in a group of a file."""
    with h5py.File(path) as file:
        places = [(file[group].name, file[group])]
        file[group].visititems(lambda _, item: places.append((item.name, item)))
        places = [
            (name, np.asarray(item[()]) if isinstance(item, h5py.Dataset) else None)
            for name, item in places
        ]
    for name, value in places:
        found = changes_of_group(name) if value is None else changes_of_dataset(name, value)
        for what, change in found:
            yield name, what, change


def refused(path):
    """What the reader says; None where it reads the file, or lacks what no file has to say."""
    try:
        read_cuba_net(path)
    except NoInputShape:
        return None
    except SpikeportError as error:
        return error
    return None


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_what_the_reader_refuses_is_an_error(layer, tmp_path):
    origin, path = whole_file(tmp_path / "origin.net"), tmp_path / "changed.net"
    assert refused(origin) is None
    assert look_at(origin).sound
    count = 0
    for place, what, change in changes(origin, f"layer/{layer}"):
        shutil.copy(origin, path)
        with h5py.File(path, "r+") as file:
            try:
                change(file)
            except (TypeError, ValueError, BlockingIOError):
                continue  # it is there already, or HDF5 does not write such a thing
        error = refused(path)
        found = look_at(path)
        count += error is not None
        if error is not None and ELSEWHERE in str(error.remedy):
            assert any(f.remedy == ELSEWHERE for f in found.found), (place, what)
        else:
            assert error is None or not found.sound, (place, what, str(error))
    assert count > 20
