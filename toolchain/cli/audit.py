"""`spikeport audit`: why a conversion loses accuracy, and whether it may be shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import spikeport
from toolchain.audit.gates import ALL_METRICS
from toolchain.cli.options import (
    Adapters,
    Data,
    Jobs,
    Json,
    Net,
    Scheduler,
    TimeLimit,
    Weights,
)
from toolchain.cli.output import Output
from toolchain.cli.param_types import data_path, network_path
from toolchain.cli.wording import as_options
from toolchain.text import counted

FAILED = 1
LAVA_SAMPLES = 16


def command(
    net: Net,
    data: Data,
    network: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="CHECKPOINT|FILE.onnx|FILE.py:FACTORY|model:NAME",
            help="Network that the file was converted from.",
        ),
    ] = None,
    weights: Weights = None,
    adapters: Adapters = None,
    html: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Write one self-contained HTML page.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT.json", help="Write the audit as JSON."),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC<=NUMBER",
            help=f"Fail unless this holds, such as mismatches=0. Metrics: {ALL_METRICS}.",
        ),
    ] = None,
    lava_samples: Annotated[
        int,
        typer.Option("--lava", min=0, help="Samples that also run on Lava, compared by digest."),
    ] = LAVA_SAMPLES,
    target: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Chip whose cores are counted.")
    ] = "loihi2",
    budget_samples: Annotated[int, typer.Option(min=1, help="Samples of the error budget.")] = 128,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = 3600.0,
    energy: Annotated[
        str | None,
        typer.Option(
            metavar="sanafe", help="Simulate energy and latency on Loihi too, in SANA-FE."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what accuracy each layer loses, and what hardware it needs.

    The network runs in four ways: float, quantized, integer reference and Lava. The output shows
    an error budget and the accuracy that each source of error costs (with --checkpoint), the
    proved and measured ranges, the cores of the target and the operation counts. Exit code 1 if a
    gate fails. With --jobs or --scheduler the audit is the same; what the float network computes
    stays in this process.
    """
    from spikeport.auditing import Audit
    from spikeport.chips import chip_of
    from toolchain.audit.gates import Gate
    from toolchain.output_policy import AUDIT, PAGE, check_output

    output = Output(as_json=json)
    for text in gate or []:
        Gate.parse(text)
    chip_of(target)
    read = [net, data_path(data), network_path(network), weights, Path(target)]
    read += adapters or []
    if html is not None:
        check_output(html, PAGE, read)
    if out is not None:
        check_output(out, AUDIT, [*read, html])
    with output.progress(f"audit: {net.stem}") as task:
        found = spikeport.audit(
            net,
            data,
            network=network,
            weights=weights,
            adapters=adapters or (),
            gates=gate or (),
            lava_samples=lava_samples,
            target=target,
            budget_samples=budget_samples,
            jobs=jobs,
            scheduler=scheduler,
            time_limit=time_limit,
            energy=energy,
            progress=lambda what, done, total: task.update(done, total, what),
        )
    found = Audit(as_options(found.document))
    for path in (out, html):
        if path is not None:
            found.save(path)
            output.say(f"wrote {path}")
    _show(found.document, output)
    output.result(found.document)
    if not found.passed:
        raise typer.Exit(FAILED)


def _show(document: dict[str, Any], output: Output) -> None:
    from toolchain.audit.html_report import accuracies, chain

    head = ("version", document["score"], "95 %", "samples")
    output.table(head, accuracies(document), document["program"]["name"])
    if "chain" in document:
        head = ("error", document["score"], "points", "95 %")
        output.table(head, chain(document["chain"]["steps"]), "what each source of error costs")
        for advice in document["chain"]["advice"]:
            output.say(advice, "yellow")
    if "budget" in document:
        _show_budget(document["budget"], output)
    _show_needs(document, output)
    for gate in document["gates"]:
        found = f"found {gate['found']:.6g}" if gate["found"] is not None else "not measured"
        if gate["found"] is None and gate["needs"]:
            found += f": needs {gate['needs']}"
        style = "green" if gate["passed"] else "red"
        word = "passed" if gate["passed"] else "FAILED"
        output.say(f"gate {gate['gate']}: {word} ({found})", style)


def _show_budget(budget: dict[str, Any], output: Output) -> None:
    from toolchain.audit.budget import TERMS

    rows = []
    for layer in budget["layers"]:
        terms = layer["terms"]
        cells = [f"{terms[t]['mean']:+.4f}" if t in terms else "" for t in TERMS]
        rows.append((layer["name"], f"{layer['total']['mean']:+.4f}", *cells))
    unit = "in thresholds per step (of a readout: in logits)"
    title = f"mean error per neuron, {budget['samples']} samples, {unit}"
    output.table(("layer", "error", *TERMS), rows, title)


def _show_needs(document: dict[str, Any], output: Output) -> None:
    metrics, lava = document["metrics"], document.get("lava")
    rows: list[tuple[str, object]] = [
        ("smallest headroom", f"{metrics['headroom']:.1f} bits"),
        ("synops per sample", f"{metrics['synops']:,.0f}"),
    ]
    if lava is not None:
        told = f"{lava['mismatches']} mismatches of {lava['compared']:,}, {lava['samples']} samples"
        rows.append(("Lava", told))
    if "simulated" in document["energy"]:
        found, ours = document["energy"]["simulated"], document["energy"]["estimate"]["nanojoules"]
        told = f"{found['nanojoules']['total']:,.1f} nJ, {found['microseconds']:,.1f} us per sample"
        rows.append((found["simulator"], f"{told}, {found['mismatches']} mismatches"))
        rows.append(("from costs", f"{ours['synop'] + ours['neuron_update']:,.1f} nJ per sample"))
    if "chip" in document:
        chip = document["chip"]
        told = f"{counted(chip['cores'], 'core')}, {counted(chip['chips'], 'chip')}"
        rows.append((chip["chip"], told))
        full = [(layer["fullest"]["share"], layer) for layer in chip["layers"] if layer["fullest"]]
        if full:
            share, layer = max(full, key=lambda pair: pair[0])
            limit = layer["fullest"]["limit"]
            rows.append(("fullest core", f"{limit} {share:.0%}, of {layer['name']}"))
    output.table(("", ""), rows, "needs")
    for problem in document.get("chip", {}).get("problems", []):
        source = problem["source"] or "no public source"
        output.say(
            f"{problem['level']}: {problem['layer']} needs {problem['told']} ({source})",
            "red" if problem["level"] == "error" else "yellow",
        )
    if lava is not None and lava["divergence"]:
        output.say(f"first divergence on Lava: {lava['divergence']}", "red")
