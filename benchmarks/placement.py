r"""Cores for one network by this project, nengo-loihi and sinabs, and each layer's nearest limit.

    python benchmarks/placement.py [TOOL...]

TOOL is `spikeport`, `nengo-loihi` or `sinabs`, by default all. Prints rows of the table in
docs/TARGETS.md; a tool that is not installed is told and left out. nengo-loihi 1.1.0 wants nengo
3.2.0, which stops on NumPy 2:

    pip install --target FOLDER --no-deps nengo-loihi==1.1.0 nengo==3.2.0 \
      numpy==1.26.4 scipy==1.13.1
    PYTHONPATH=FOLDER python benchmarks/placement.py nengo-loihi

sinabs imports samna, the driver of its chips, which is replaced by a stand-in here: memory and
places are counted without it. The network is built with each tool's own layers.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

SHAPE = (1, 18, 18)
CONVOLUTIONS = ((8, 3, 1), (16, 3, 2))
"""Channels, kernel and stride, without padding: 8x16x16 and 16x7x7 neurons."""
CLASSES = 10
Row = tuple[str, list[str], list[str]]
"""Tool and chip; cores (or the core) of each layer; the limit with the largest share."""


def ours() -> Iterator[Row]:
    """This project, on Loihi 1 and on Speck."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    from torch import nn

    import spikeport
    from spikeport.chips import chip_of

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = SHAPE[0]
    for width, kernel, stride in CONVOLUTIONS:
        layers += [nn.Conv2d(channels, width, kernel, stride), spikeport.QCFS(levels=4)]
        channels = width
    network = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(CLASSES))
    network(torch.zeros(1, *SHAPE))
    for target in ("loihi1", "speck"):
        program = spikeport.convert(
            network, input_shape=SHAPE, input_bits=1, steps=4, target=target
        ).program
        found = chip_of(target).fit(program).describe()
        cores = [
            f"core {layer['core']}" if "core" in layer else str(layer["cores"])
            for layer in found["layers"]
        ]
        most = [_share(**layer["fullest"]) for layer in found["layers"]]
        yield f"spikeport {version('spikeport')}, {target}", cores, most


def nengo_loihi() -> Iterator[Row]:
    """nengo-loihi's blocks, one for each core, after its own split."""
    import nengo
    import nengo_loihi as tool
    import numpy as np

    def layer(size: int, neuron: Any) -> Any:
        one, none = nengo.dists.Choice([1]), nengo.dists.Choice([0])
        return nengo.Ensemble(size, 1, neuron_type=neuron, gain=one, bias=none)

    chosen = tool.neurons.LoihiSpikingRectifiedLinear()
    with nengo.Network(seed=0) as network:
        tool.add_params(network)
        source = layer(int(np.prod(SHAPE)), nengo.SpikingRectifiedLinear())
        network.config[source].on_chip = False
        shape, stages = SHAPE, []
        for width, kernel, stride in CONVOLUTIONS:
            how: Any = {"kernel_size": (kernel, kernel), "strides": (stride, stride)}
            weights = nengo.Convolution(width, shape, channels_last=False, **how)
            stages.append(layer(weights.output_shape.size, chosen))
            nengo.Connection(source.neurons, stages[-1].neurons, transform=weights)
            source, shape = stages[-1], weights.output_shape.shape
        stages.append(layer(CLASSES, chosen))
        dense = np.random.default_rng(0).standard_normal((CLASSES, source.n_neurons))
        nengo.Connection(source.neurons, stages[-1].neurons, transform=dense)
    blocks = tool.Simulator(network, target="sim", progress_bar=False).model.blocks
    cores, most = [], []
    for stage in stages:
        own = [block for block in blocks if block.label.startswith(str(stage))]
        shares = [
            (used / limit, name)
            for block in own
            for name, (used, limit) in block.utilization().items()
        ]
        share, name = max(shares)
        cores.append(str(len(own)))
        most.append(_share(name, share))
    assert sum(map(int, cores)) == len(blocks)
    yield f"nengo-loihi {tool.__version__}, Loihi 1", cores, most


def sinabs() -> Iterator[Row]:
    """sinabs' layers of the chip, and its own matching of layers and cores."""
    for name in ("samna", "samnagui"):
        sys.modules.setdefault(name, MagicMock())
    for chip in ("speck2e", "speck2f"):
        for part in ("", ".configuration"):
            sys.modules.setdefault(f"samna.{chip}{part}", MagicMock())
    from sinabs.backend.dynapcnn import DynapcnnNetwork
    from sinabs.backend.dynapcnn.chips import Speck2FConfigBuilder
    from sinabs.backend.dynapcnn.mapping import get_valid_mapping
    from sinabs.layers import IAFSqueeze
    from torch import nn

    layers: list[nn.Module] = []
    channels, size = SHAPE[0], SHAPE[1]
    for width, kernel, stride in CONVOLUTIONS:
        layers += [nn.Conv2d(channels, width, kernel, stride), IAFSqueeze(batch_size=1)]
        channels, size = width, (size - kernel) // stride + 1
    layers += [nn.Flatten(), nn.Linear(channels * size * size, CLASSES), IAFSqueeze(batch_size=1)]
    network = DynapcnnNetwork(nn.Sequential(*layers), input_shape=SHAPE)
    limits = Speck2FConfigBuilder.get_constraints()
    homes = get_valid_mapping(network.dynapcnn_layers, limits)
    cores, most = [], []
    for index, stage in network.dynapcnn_layers.items():
        use, limit = stage.memory_summary(), limits[homes[index]]
        names = {"kernel": "kernel_memory", "neuron": "neuron_memory", "bias": "bias_memory"}
        shares = [(use[key] / getattr(limit, name), name) for key, name in names.items()]
        share, name = max(shares)
        cores.append(f"core {homes[index]}")
        most.append(_share(name, share))
    yield f"sinabs {version('sinabs')}, Speck 2f", cores, most


def _share(limit: str, share: float) -> str:
    return f"{limit} {share:.0%}"


TOOLS: dict[str, Callable[[], Iterator[Row]]] = {
    "spikeport": ours,
    "nengo-loihi": nengo_loihi,
    "sinabs": sinabs,
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=", ".join(TOOLS))
    warnings.simplefilter("ignore")
    for name in parser.parse_args().tools or TOOLS:
        if name not in TOOLS:
            parser.error(f"no such tool: {name}")
        try:
            rows = list(TOOLS[name]())
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        for tool, cores, most in rows:
            print(f"| {tool} | {', '.join(cores)} | {'; '.join(most)} |")


if __name__ == "__main__":
    main()
