"""lint: a file for every rule, hostile files within bounds, and files changed at random."""

import json
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from exports.netx import read_net, write_net
from exports.netx.lint import RULES, lint_file
from exports.netx.lint.check_file import look_at
from exports.netx.lint.isolated import Worker
from hw_models.profile import load_profile
from tests.command_line import fails, ok, spikeport
from tests.networks import one_convolution, random_program
from tests.netx_files import (
    COMES_ALONG,
    HOSTILE,
    STOCK_EXAMPLES,
    own_file,
    put_dense,
    stock_file,
)
from tests.oracles import net_file
from toolchain.errors import FormatError, TargetError
from toolchain.program.bounds import analyse
from toolchain.program.int_program import Schedule
from toolchain.program.range_certificate import range_certificate

OTHER_EXAMPLES = {
    "unreadable",
    "no-network",
    "hostile",
    "crash",
    "not-this-program",
    "certificate",
    "range-not-proved",
    "ranges-watched",
    "strange-name",
    "other-target",
}
"""Rules with tests of their own."""


def broken(tmp_path, change):
    path = stock_file(tmp_path / "stock.net")
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_sound_files_have_no_findings(tmp_path):
    for path, kind in (
        (stock_file(tmp_path / "stock.net"), "stock"),
        (own_file(tmp_path / "own.net"), "spikeport"),
        (own_file(tmp_path / "cif.net", kind="cif", schedule=Schedule(3, 4)), "spikeport"),
    ):
        found = look_at(path, load_profile("loihi2"))
        assert (found.kind, found.found) == (kind, [])


def test_every_rule_has_a_file_that_shows_it():
    assert {*STOCK_EXAMPLES, *OTHER_EXAMPLES} == set(RULES)
    assert all(rule.why and rule.remedy and rule.source for rule in RULES.values())


@pytest.mark.parametrize("rule", STOCK_EXAMPLES)
def test_the_rule_is_found_where_it_is_broken(rule, tmp_path):
    change, where = STOCK_EXAMPLES[rule]
    found = look_at(broken(tmp_path, change)).found
    assert [f.where for f in found if f.rule_id == rule] == [where]
    assert {f.rule_id for f in found} - {rule} == COMES_ALONG.get(rule, set())


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        # Odd and of both signs: the loader gives them nine bits, and they stay.
        ((-201, 199), None),
        ((-256, 254), None),
        ((-256, 255), "weights-clipped"),
        ((-4, -3), "weights-changed"),
        ((-4, -2), "weights-changed"),
        ((-5, -3), None),
        ((-257, -1), "weights-zeroed"),
        ((-8, -8), "weights-zeroed"),
        ((-128, 0), "weights-changed"),
        ((-127, 0), None),
        ((-131, 0), "weights-zeroed"),
        ((0, 255), None),
        ((0, 256), "weights-zeroed"),
    ],
)
def test_dense_weights_that_stock_changes(values, rule, tmp_path):
    def change(file):
        weight = np.full((3, 120), values[0], np.float32)
        weight[:, ::2] = values[1]
        put_dense(file["layer/3"], weight)

    found = look_at(broken(tmp_path, change)).found
    assert [f.rule_id for f in found] == ([] if rule is None else [rule])


@pytest.mark.parametrize("example", HOSTILE)
def test_hostile_files_are_refused_unread(example, tmp_path):
    path = broken(tmp_path, HOSTILE[example])
    started = time.monotonic()
    found = lint_file(path).found
    assert time.monotonic() - started < 20
    assert {f.rule_id for f in found} == {"hostile"}


def test_a_damaged_file(tmp_path):
    path = stock_file(tmp_path / "stock.net")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert [f.rule_id for f in lint_file(path).found] == ["unreadable"]
    path.write_bytes(b"PK\x03\x04")
    assert [f.rule_id for f in lint_file(path).found] == ["unreadable"]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    other = lint_file(tmp_path / "other.h5")
    assert (other.kind, [f.rule_id for f in other.found]) == ("unknown", ["no-network"])


def test_what_ends_the_worker_is_a_finding(tmp_path, monkeypatch):
    path = stock_file(tmp_path / "stock.net")
    with Worker() as worker:
        assert worker.lint(path).sound
        process = worker._process
        process.kill()
        process.wait()
        crashed = worker.lint(path)
        assert [f.rule_id for f in crashed.found] == ["crash"]
        assert "-9" in crashed.found[0].found
        assert worker.lint(path).sound


def test_memory_is_bounded(tmp_path, monkeypatch):
    # 2 GB in memory, which the limits on shapes allow and the limit of the process does not.
    path = stock_file(tmp_path / "stock.net")
    monkeypatch.setattr("exports.netx.lint.isolated.MEMORY", 100 << 20)
    monkeypatch.setattr("exports.netx.lint.isolated.MEMORY_FOR_A_BYTE", 0)
    with h5py.File(path, "r+") as file:
        del file["layer/3/weight"]
        file["layer/3"]["weight"] = np.ones((3, 1 << 22), np.float64)
    found = lint_file(path).found
    assert [f.rule_id for f in found] == ["crash"]
    assert "bytes" in found[0].found


def test_time_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("exports.netx.lint.isolated.SECONDS", 0.0)
    monkeypatch.setattr("exports.netx.lint.isolated.SECONDS_FOR_A_MEGABYTE", 0.0)
    found = lint_file(stock_file(tmp_path / "stock.net")).found
    assert [f.rule_id for f in found] == ["crash"]
    assert "no answer" in found[0].found


def test_a_changed_program(tmp_path):
    path = own_file(tmp_path / "own.net")
    with h5py.File(path, "r+") as file:
        file["layer/1/bias"][0] += 1
    assert [f.rule_id for f in lint_file(path).found] == ["not-this-program"]


def test_certificates_are_proved_anew(tmp_path):
    path = own_file(tmp_path / "own.net")
    program = read_net(path)
    with h5py.File(path, "r+") as file:
        written = json.loads(file["spikeport/certificate"][()])
        assert written == range_certificate(program)
        assert written["holds"]
        for bound in analyse(program):
            held = written["populations"][bound.name]
            assert held["state"] == [bound.state.low, bound.state.high]
            assert held["current"] == [bound.current.low, bound.current.high]

    def with_certificate(text):
        with h5py.File(path, "r+") as file:
            del file["spikeport/certificate"]
            file["spikeport/certificate"] = text
        net_file.write_text_hash(path)
        return [(f.rule_id, f.where) for f in lint_file(path).found]

    written["populations"]["conv0"]["state"][1] -= 1
    assert with_certificate(json.dumps(written)) == [("certificate", "conv0")]
    written["populations"]["conv0"]["state"][1] += 1
    written["holds"] = False
    assert with_certificate(json.dumps(written)) == [("certificate", "holds")]
    assert {rule for rule, _ in with_certificate("[]")} == {"certificate"}
    assert {rule for rule, _ in with_certificate(json.dumps({"version": 1}))} == {"certificate"}
    with h5py.File(path, "r+") as file:
        del file["spikeport/certificate"]
    net_file.write_text_hash(path)
    assert lint_file(path).found == []


def test_ranges_are_proved_anew(tmp_path):
    # 12 bits of state do not hold sums of 8-bit weights.
    for watched, rule in ((False, "range-not-proved"), (True, "ranges-watched")):
        program = replace(random_program(1), state_bits=12, watch_ranges=watched)
        write_net(program, tmp_path / "narrow.net")
        assert [f.rule_id for f in lint_file(tmp_path / "narrow.net").found] == [rule]


def test_another_target(tmp_path):
    program = one_convolution(np.full((1, 1, 3, 3), 200))
    write_net(program, tmp_path / "wide.net")
    found = lint_file(tmp_path / "wide.net", "loihi2").found
    assert [(f.rule_id, f.where) for f in found] == [
        ("other-target", "program"),
        ("other-target", "conv"),
    ]
    assert "state bits 32 .. 32, 1 .. 24 on loihi2" in found[0].found
    assert "weights 200 .. 200, -128 .. 127 on loihi2" in found[1].found
    with pytest.raises(TargetError):
        lint_file(tmp_path / "wide.net", "loihi9")
    with pytest.raises(FormatError, match="no such file"):
        lint_file(tmp_path / "missing.net")


def test_the_command(tmp_path):
    stock_file(tmp_path / "good.net")
    broken(tmp_path, STOCK_EXAMPLES["weights-clipped"][0]).rename(tmp_path / "bad.net")
    broken(tmp_path, STOCK_EXAMPLES["input-numpy"][0]).rename(tmp_path / "warned.net")
    assert "nothing found" in ok("lint", "good.net", cwd=tmp_path).stdout
    text = spikeport("lint", "good.net", "bad.net", cwd=tmp_path)
    assert text.returncode == 1
    for words in ("bad.net:/layer/3/weight", "[weights-clipped]", "why:", "remedy:", "1 error"):
        assert words in text.stdout
    ok("lint", "warned.net", cwd=tmp_path)
    assert spikeport("lint", "warned.net", "--strict", cwd=tmp_path).returncode == 1
    fails(2, "--format json or sarif", "lint", "good.net", "-o", "x.json", cwd=tmp_path)
    fails(2, "no such file", "lint", "missing.net", cwd=tmp_path)
    fails(2, "no such target", "lint", "good.net", "--target", "tpu", cwd=tmp_path)
    report = json.loads(spikeport("lint", "bad.net", "--json", cwd=tmp_path).stdout)
    assert [f["rule"] for f in report["files"][0]["findings"]] == ["weights-clipped"]
    arguments = ("lint", "bad.net", "warned.net", "--format", "sarif", "-o", "report.sarif")
    assert spikeport(*arguments, cwd=tmp_path).returncode == 1
    sarif = json.loads((tmp_path / "report.sarif").read_text())
    (run,) = sarif["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == list(RULES)
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [
        ("weights-clipped", "error"),
        ("input-numpy", "warning"),
    ]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] in ("bad.net", "warned.net")
