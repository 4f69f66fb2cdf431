"""`spikeport audit`: why a conversion loses accuracy, and whether it may be shipped."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain.audit.gates import ALL_METRICS
from toolchain.cli.inputs import data_path, network_path
from toolchain.cli.options import Adapters, Data, Json, Net, TimeLimit
from toolchain.cli.output import Output
from toolchain.errors import CheckpointError, TargetError
from toolchain.text import counted

if TYPE_CHECKING:
    import numpy as np

    from toolchain.audit.audit import LavaRun
    from toolchain.audit.chip_fit import Chip
    from toolchain.audit.judges import Judge
    from toolchain.audit.source_network import SourceNetwork
    from toolchain.cli.network import Network
    from toolchain.data import BoxDataset, Dataset
    from toolchain.program.int_program import IntProgram

FAILED = 1
LAVA_SAMPLES = 16


def command(
    net: Net,
    data: Data,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT|FILE.py:FACTORY", help="What the file was converted from."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="State dict for FILE.py:FACTORY (.safetensors, .pt).")
    ] = None,
    adapter: Adapters = None,
    html: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Write one offline page.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="OUT.json", help="Write the document.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC<=NUMBER",
            help=f"Fail unless this holds, such as mismatches=0. Metrics: {ALL_METRICS}.",
        ),
    ] = None,
    lava: Annotated[
        int, typer.Option(min=0, help="Samples that run on Lava as well, by digest.")
    ] = LAVA_SAMPLES,
    target: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Chip that it is fitted to.")
    ] = "loihi2",
    budget_samples: Annotated[int, typer.Option(min=1, help="Samples of the error budget.")] = 128,
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Say what each layer of a network loses, and what it needs.

    The network runs in four ways: float, quantized, integer reference and Lava. Shown are an error
    budget and the accuracy that each source of error costs (with --checkpoint); proved and attained
    ranges; cores of the target; operations. Exit code 1 if a gate fails.
    """
    from exports.netx import read_net
    from toolchain.audit.audit import Subject, run_audit
    from toolchain.audit.gates import Gate
    from toolchain.cli.costs import operation_costs
    from toolchain.cli.data import open_for
    from toolchain.conversion.adapters import load_adapter_file
    from toolchain.data import input_spikes
    from toolchain.output_policy import AUDIT, PAGE, check_output

    output = Output(as_json=json)
    gates = [Gate.parse(text) for text in gate or []]
    chip = chip_of(target)
    read = [net, data_path(data), network_path(checkpoint), weights, Path(target)]
    read += adapter or []
    if html is not None:
        check_output(html, PAGE, read)
    if out is not None:
        check_output(out, AUDIT, [*read, html])
    program = read_net(net)
    dataset = open_for(program, data)
    real = dataset.real()
    inputs = input_spikes(program.input, dataset)
    samples = program.input.normalise(real)
    for path in adapter or []:
        load_adapter_file(path)
    source, versions = _float_side(program, checkpoint, weights, samples)
    subject = Subject(
        program=program,
        inputs=inputs,
        samples=samples,
        judge=judge_of(program, dataset),
        data=dataset.name,
        source=source,
        versions=versions,
        lava=_on_lava(program, inputs[:lava], output, time_limit) if lava else None,
        chip=chip,
        costs=operation_costs(),
    )
    with output.progress(f"audit: {program.name}") as task:
        document = run_audit(
            subject, gates, budget_samples, lambda what, n, of: task.update(n, of, what)
        )
    _write(document, html, out, output)
    _show(document, output)
    output.result(document)
    if not document["passed"]:
        raise typer.Exit(FAILED)


def judge_of(program: IntProgram, dataset: Dataset | BoxDataset) -> Judge:
    """What judges the outputs of a program on these data."""
    from toolchain.audit.judges import AnyOutputs, Classifier
    from toolchain.data import BoxDataset
    from toolchain.detection.judge import DetectorJudge
    from toolchain.detection.spec import DetectorSpec

    shapes = tuple(p.shape for p in program.readouts)
    if isinstance(dataset, BoxDataset):
        return DetectorJudge(DetectorSpec.of(program), dataset, shapes)
    is_classifier = len(shapes) == 1 and len(shapes[0]) == 1
    return Classifier(dataset.labels) if is_classifier else AnyOutputs()


def chip_of(target: str) -> Chip:
    """The chip that a target is; raises TargetError if it is none."""
    from hw_models.profile import load_profile
    from toolchain.audit.chip_fit import PER_CORE, Chip, ChipLimit

    profile = load_profile(target)
    limits = {k: ChipLimit(v.value, v.source) for k, v in profile.chip.items()}
    if "cores" not in limits:
        raise TargetError(
            "is no chip",
            node=target,
            found="limits of numbers only",
            remedy="--target loihi1, loihi2, or a TOML file with [chip.cores]",
        )
    per_core = {k: limits[k] for k in PER_CORE if k in limits}
    return Chip(
        profile.name,
        limits["cores"],
        per_core,
        profile.shares_kernels,
        profile.as_target_limits(),
        {name: limit.source for name, limit in profile.limits.items()},
    )


def _float_side(
    program: IntProgram, checkpoint: str | None, weights: Path | None, samples: np.ndarray
) -> tuple[SourceNetwork | None, dict[str, np.ndarray]]:
    """The network that the program came from, and what its own module answers."""
    if checkpoint is None:
        return None, {}
    import torch

    from toolchain.activations import Mode
    from toolchain.audit.audit import FLOAT, QUANTIZED
    from toolchain.audit.source_network import SourceNetwork
    from toolchain.cli.network import InputDescription, load_network
    from toolchain.training.evaluate import logits
    from toolchain.user_code import home_of, user_code

    shape = program.input.shape
    description = InputDescription(shape, None, program.input.bits, (0.0,), (1.0,))
    network = load_network(checkpoint, weights, description)
    _check_origin(program, network, checkpoint)
    source = SourceNetwork.of(program, network.model)
    # What is kept in another type than float32 is compared without its rounding of sums.
    kinds = {p.dtype for p in network.model.parameters()}
    kind = torch.float32 if kinds <= {torch.float32} else torch.float64
    model = network.model.to(kind)
    with user_code("the network's forward fails", checkpoint, home_of(network.model)):
        versions = {
            name: logits(model, torch.tensor(samples, dtype=kind), mode).numpy()
            for name, mode in ((FLOAT, Mode.CLIPPED), (QUANTIZED, Mode.QUANTIZED))
        }
    if source.measured:
        del versions[QUANTIZED]
    return source, versions


def _check_origin(program: IntProgram, network: Network, checkpoint: str) -> None:
    for key in ("checkpoint_sha256", "weights_sha256"):
        ours, theirs = network.provenance.get(key), program.provenance.get(key)
        if theirs is not None and ours != theirs:
            raise CheckpointError(
                "is not what the file was converted from",
                node=checkpoint,
                found=f"{key} {ours}",
                allowed=theirs,
                remedy="give the checkpoint (and --weights) it was made of",
            )


def _on_lava(program: IntProgram, inputs: np.ndarray, output: Output, time_limit: float) -> LavaRun:
    from exports.lava import LavaModels, run_on_lava
    from toolchain.audit.audit import LavaRun
    from toolchain.recording import Mode, compare
    from toolchain.simulator.simulate import simulate

    with output.progress(f"lava: {program.name}") as task:
        found = run_on_lava(
            program,
            inputs,
            models=LavaModels.fast(),
            mode=Mode.DIGEST,
            time_limit=time_limit,
            progress=task.update,
        )
    expected = simulate(program, inputs, mode=Mode.DIGEST)
    outcome = compare(expected, found)
    first = "" if outcome.first is None else str(outcome.first)
    return LavaRun(found.outputs, outcome.compared, outcome.total, first)


def _write(document: dict[str, Any], html: Path | None, out: Path | None, output: Output) -> None:
    from toolchain.files import atomic_write

    if out is not None:
        text = json_text.dumps(document, indent=1, default=str)
        atomic_write(out, text.encode() + b"\n")
        output.say(f"wrote {out}")
    if html is not None:
        from toolchain.audit.page import write_page

        atomic_write(html, write_page(document).encode())
        output.say(f"wrote {html}")


def _show(document: dict[str, Any], output: Output) -> None:
    from toolchain.audit.page import accuracies, chain

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
    if "chip" in document:
        chip = document["chip"]
        told = f"{counted(chip['cores'], 'core')}, {counted(chip['chips'], 'chip')}"
        rows.append((chip["chip"], told))
    output.table(("", ""), rows, "needs")
    for problem in document.get("chip", {}).get("problems", []):
        source = problem["source"] or "no public source"
        output.say(
            f"{problem['level']}: {problem['layer']} needs {problem['told']} ({source})",
            "red" if problem["level"] == "error" else "yellow",
        )
    if lava is not None and lava["divergence"]:
        output.say(f"first divergence on Lava: {lava['divergence']}", "red")
