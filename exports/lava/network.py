"""Construction of the Lava processes of a run: the input and one or more blocks in a row.

Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from exports.lava.models import ATRLIF, LavaModels
from hw_models.block_layout import BlockLayout
from hw_models.processes.block import BlockProcess
from hw_models.processes.graded_input import GradedInput
from hw_models.recorder import Recorder
from toolchain.program.int_program import INPUT, IntProgram


def build(
    program: IntProgram,
    samples_path: Path,
    num_samples: int,
    recorders: Mapping[str, Recorder],
    models: LavaModels,
    cuts: Sequence[int] = (),
) -> tuple[Any, int]:
    """Make and connect all processes.

    Parameters
    ----------
    samples_path:
        `.npy` of graded input spikes in Lava's axis order, see `axes.to_lava`.
    recorders:
        Recorder of the local steps of a population, by name.
    models:
        Neurons, and number of samples that advance together.
    cuts:
        Indices of the populations that begin a new block.

    Returns
    -------
    The input process, through which the whole network is run, and the number of global steps.

    Raises
    ------
    TargetError
        If the network cannot be cut at these places.
    """
    batch = models.batch
    num_batches = -(-num_samples // batch)
    edges = (0, *cuts, len(program.populations))
    layouts = [
        BlockLayout(program, first, last, batch, num_batches) for first, last in pairwise(edges)
    ]
    first = GradedInput(
        shape=layouts[0].in_shape,
        samples_path=str(samples_path),
        clock=layouts[0].clock(INPUT),
        batch=batch,
        per_step=program.input.per_step,
    )
    port = first.s_out
    for layout in layouts:
        own = {p.name: recorders[p.name] for p in layout.populations if p.name in recorders}
        block = BlockProcess(layout=layout, recorders=own, atrlif=models.neurons == ATRLIF)
        port.connect(block.s_in)
        port = block.s_out
    depth = max(program.depths().values())
    return first, num_batches * program.schedule.num_steps + depth
