"""Small random integer programs for tests."""

import itertools
from dataclasses import replace

import numpy as np

from toolchain.errors import ProgramError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    GradedIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Readout,
    Relay,
)
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse

FOUR_STEPS = Schedule(4)
NEURONS = {"if": IntegrateAndFire, "cif": ConsistentIntegrateAndFire}


def spiking(rng, kind, channels, reach):
    """A neuron whose thresholds are of the size of its input."""
    theta = rng.integers(1, max(2, reach), channels)
    if kind == "graded":
        most = int(rng.integers(2, 9))
        theta = 1 + theta // most
        return GradedIntegrateAndFire(theta, theta // 2, most)
    return NEURONS[kind](theta, theta // 2)


def fits(shape, convs):
    """Whether every convolution's kernel fits into what the one before it leaves."""
    size = shape[1:]
    for _, kernel, stride, padding, dilation, _, *more in convs:
        upsample, overhang = more or (1, 0)
        reach = dilation * (kernel - 1) + 1
        seen = [(s - 1) * upsample + 1 + 2 * padding + overhang for s in size]
        size = tuple((s - reach) // stride + 1 for s in seen)
        if min(size) < 1:
            return False
    return True


def typical(weight, source):
    """About the size of a step's current, so that neurons fire now and then."""
    sums = np.abs(weight).reshape(len(weight), -1).sum(axis=1)
    return 2 + int(sums.max()) * (4 if source == "input" else 1) // 4


def random_program(
    seed,
    kind="if",
    shape=(2, 6, 5),
    convs=((3, 3, 1, 1, 1, 1),),
    hidden=(7,),
    classes=4,
    schedule=FOUR_STEPS,
    signed_input=False,
    low=-128,
    high=127,
):
    """Convolutions (C_out, kernel, stride, padding, dilation, groups), then dense layers.

    A convolution may have two numbers more: upsample and overhang.
    """
    rng = np.random.default_rng(seed)
    quantizer = InputQuantizer(shape, 1.0, bits=4, signed=signed_input)
    populations, source, here = [], "input", shape
    for index, (c_out, kernel, stride, padding, dilation, groups, *more) in enumerate(convs):
        weight = rng.integers(low, high + 1, (c_out, here[0] // groups, kernel, kernel))
        how = {k: (v,) * 2 for k, v in zip(("upsample", "overhang"), more, strict=False)}
        synapse = ConvSynapse(
            source, weight, (stride,) * 2, (padding,) * 2, (dilation,) * 2, groups, **how
        )
        here = synapse.output_shape(here)
        reach = typical(weight, source)
        populations.append(
            Population(
                f"conv{index}",
                here,
                (synapse,),
                rng.integers(-50, 51, c_out),
                spiking(rng, kind, c_out, reach),
            )
        )
        source = f"conv{index}"
    for index, features in enumerate((*hidden, classes)):
        weight = rng.integers(low, high + 1, (features, int(np.prod(here))))
        last = index == len(hidden)
        reach = typical(weight, source)
        neuron = Readout(1.0) if last else spiking(rng, kind, features, reach)
        name = "readout" if last else f"dense{index}"
        populations.append(
            Population(
                name,
                (features,),
                (DenseSynapse(source, weight),),
                rng.integers(-50, 51, features),
                neuron,
            )
        )
        source, here = name, (features,)
    return IntProgram("random", quantizer, tuple(populations), schedule)


class Branches:
    """Random populations that may branch, added one by one; `shapes` by name."""

    def __init__(self, seed, kind, shape, low=-128, high=127):
        self.rng = np.random.default_rng(seed)
        self.kind, self.low, self.high = kind, low, high
        self.shapes = {"input": shape}
        self.populations = []

    def conv(self, source, c_out, kernel=3, stride=1, padding=None, exponent=0):
        padding = kernel // 2 if padding is None else padding
        shape = (c_out, self.shapes[source][0], kernel, kernel)
        weight = self.rng.integers(self.low, self.high + 1, shape)
        return ConvSynapse(source, weight, (stride,) * 2, (padding,) * 2, weight_exponent=exponent)

    def identity(self, source):
        """A skip: each channel to itself, with a weight of its own and an exponent."""
        channels = self.shapes[source][0]
        weight = self.rng.integers(1, 128, (channels, 1, 1, 1))
        exponent = int(self.rng.integers(0, 3))
        return ConvSynapse(source, weight, groups=channels, weight_exponent=exponent)

    def dense(self, source, features):
        size = int(np.prod(self.shapes[source]))
        return DenseSynapse(source, self.rng.integers(self.low, self.high + 1, (features, size)))

    def add(self, name, synapses, neuron=None):
        shape = synapses[0].output_shape(self.shapes[synapses[0].source])
        bias = self.rng.integers(-50, 51, shape[0])
        if neuron is None:
            reach = max(typical(s.weight, s.source) << s.weight_exponent for s in synapses)
            neuron = spiking(self.rng, self.kind, shape[0], reach)
        elif not isinstance(neuron, Readout):
            bias = np.zeros(shape[0], int)
        self.populations.append(Population(name, shape, tuple(synapses), bias, neuron))
        self.shapes[name] = shape
        return name

    def pool(self, name, source, kernel, stride, padding=0, dilation=1, overhang=(0, 0)):
        windows = WindowSynapse(
            source, (kernel,) * 2, (stride,) * 2, (padding,) * 2, (dilation,) * 2, overhang
        )
        return self.add(name, [windows], LIPool())

    def sum_pool(self, name, source, kernel, stride):
        channels = self.shapes[source][0]
        ones = np.ones((channels, 1, kernel, kernel), int)
        return self.add(name, [ConvSynapse(source, ones, (stride,) * 2, groups=channels)], Relay())

    def program(self, quantizer, schedule):
        return IntProgram("branched", quantizer, tuple(self.populations), schedule)


def residual(net, source, name):
    """One or two convolutions around which a skip leads."""
    channels = net.shapes[source][0]
    inner = net.add(f"{name}a", [net.conv(source, 3)])
    if net.rng.random() < 0.5:
        inner = net.add(f"{name}b", [net.conv(inner, 2, 1)])
    return net.add(name, [net.conv(inner, channels), net.identity(source)])


def strided_residual(net, source, name):
    """Halves the plane; the skip is a strided 1x1 convolution."""
    inner = net.add(f"{name}a", [net.conv(source, 3, 3, 2)])
    return net.add(name, [net.conv(inner, 4), net.conv(source, 4, 1, 2, exponent=1)])


def concatenated(net, source, name):
    """Two branches of unequal depth and one more of no depth, concatenated."""
    short = net.add(f"{name}s", [net.conv(source, 2, 1)])
    long = net.add(f"{name}l", [net.conv(short, 3)])
    return net.add(name, [net.conv(x, 3) for x in (source, short, long)])


def max_pooled(net, source, name):
    """A LIPool, overlapping and padded or not, sometimes dilated."""
    kernel, stride, padding, dilation = [(2, 2, 0, 1), (3, 2, 1, 1), (2, 1, 1, 2), (3, 1, 0, 1)][
        int(net.rng.integers(4))
    ]
    if min(net.shapes[source][1:]) < dilation * (kernel - 1) + 1:
        kernel, stride, padding, dilation = 1, 1, 0, 1
    return net.pool(name, source, kernel, stride, padding, dilation)


def overhung(net, source, name):
    """A LIPool with another padding below and to the right than above and to the left."""
    fitting = []
    for geometry in ((2, 2, 0, 1), (3, 2, 0, 1), (3, 2, 1, 1), (2, 3, 1, 2)):
        kernel, stride, padding, dilation = ((value, value) for value in geometry)
        for overhang in itertools.product(range(-1, 4), repeat=2):
            windows = (source, kernel, stride, padding, dilation, overhang)
            try:
                WindowSynapse(*windows).output_shape(net.shapes[source])
            except ProgramError:
                continue
            fitting += [(*geometry, overhang)] if any(overhang) else []
    return net.pool(name, source, *fitting[int(net.rng.integers(len(fitting)))])


def sum_pooled(net, source, name):
    """A sum pool as a stage of its own, then a convolution."""
    kernel = 2 if min(net.shapes[source][1:]) >= 2 else 1
    pooled = net.sum_pool(f"{name}p", source, kernel, kernel)
    return net.add(name, [net.conv(pooled, 3, 1)])


def upsampled(net, source, name):
    """A transposed convolution and a nearest upsampling, which meet, with a skip from the source.

    The result is as large as the source.
    """
    _, height, width = net.shapes[source]
    low = net.add(f"{name}d", [net.conv(source, 3, 3, 2)])
    over = ((height + 1) % 2, (width + 1) % 2)
    weight = net.rng.integers(net.low, net.high + 1, (3, 3, 3, 3))
    up = ConvSynapse(low, weight, padding=(1, 1), upsample=(2, 2), overhang=over)
    ones = np.ones((3, 1, 2, 2), int)
    less = (-(height % 2), -(width % 2))
    nearest = {"padding": (1, 1), "groups": 3, "upsample": (2, 2), "overhang": less}
    wide = net.add(f"{name}r", [ConvSynapse(low, ones, **nearest)], Relay())
    return net.add(name, [up, net.conv(wide, 3), net.conv(source, 3)])


def graded_sum(net, source, name):
    """A residual sum with no neuron behind it: a relay of both branches, then a convolution."""
    channels = net.shapes[source][0]
    inner = net.add(f"{name}a", [net.conv(source, channels)])
    ones = np.ones((channels, 1, 1, 1), int)
    both = [ConvSynapse(s, ones, groups=channels) for s in (source, inner)]
    relay = net.add(f"{name}r", both, Relay())
    return net.add(name, [net.conv(relay, 3)])


BLOCKS = {
    "residual": residual,
    "strided": strided_residual,
    "concat": concatenated,
    "max": max_pooled,
    "overhang": overhung,
    "sum": sum_pooled,
    "graded": graded_sum,
    "upsampled": upsampled,
}


def branched_program(
    seed,
    kind="if",
    blocks=("residual", "max", "concat"),
    shape=(2, 6, 5),
    schedule=FOUR_STEPS,
    signed_input=False,
    skip_to_readout=True,
    low=-128,
    high=127,
    heads=0,
):
    """A convolution, then `blocks`, then a readout that may see an early layer as well.

    With `heads`, that many readouts that are images come before it.
    """
    net = Branches(seed, kind, shape, low, high)
    here = first = net.add("stem", [net.conv("input", 3)])
    for index, block in enumerate(blocks):
        here = BLOCKS[block](net, here, f"{block}{index}")
    for index in range(heads):
        net.add(f"head{index}", [net.conv(here if index % 2 else first, 2 + index)], Readout(0.5))
    readouts = [net.dense(here, 4)]
    if skip_to_readout:
        readouts.append(net.dense(first, 4))
    net.add("readout", readouts, Readout(1.0))
    return net.program(InputQuantizer(shape, 1.0, bits=4, signed=signed_input), schedule)


def random_inputs(program, count, seed=0):
    """Graded spikes over the whole input range, int32 (count, ...)."""
    rng = np.random.default_rng(seed)
    span = program.input.range
    return rng.integers(span.low, span.high + 1, (count, *program.sample_shape)).astype(np.int32)


def per_step(program):
    """The same program for sequences: a tensor of graded spikes for each wake step."""
    return replace(program, input=replace(program.input, per_step=True))


def renamed(program, names):
    """The same program with other names of layers, in order; those without one keep theirs."""
    new = dict(zip((p.name for p in program.populations), names, strict=False))
    populations = tuple(
        replace(
            p,
            name=new.get(p.name, p.name),
            synapses=tuple(replace(s, source=new.get(s.source, s.source)) for s in p.synapses),
        )
        for p in program.populations
    )
    return replace(program, populations=populations)


def one_convolution(weight, bits=8, signed=False):
    return IntProgram(
        "one",
        InputQuantizer((1, 3, 3), 1.0, bits=bits, signed=signed),
        (
            Population(
                "conv",
                (1, 3, 3),
                (ConvSynapse("input", weight, padding=(1, 1)),),
                [0],
                IntegrateAndFire([1000], [500]),
            ),
            Population("readout", (1,), (DenseSynapse("conv", [[1] * 9]),), [0], Readout(1.0)),
        ),
        Schedule(2),
        weight_bits=16,
        state_bits=32,
    )
