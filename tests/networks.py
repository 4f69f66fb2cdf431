"""Small random integer programs for tests."""

import numpy as np

from toolchain.neurons import ConsistentIntegrateAndFire, IntegrateAndFire, Readout
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.synapse import ConvSynapse, DenseSynapse

FOUR_STEPS = Schedule(4)
NEURONS = {"if": IntegrateAndFire, "cif": ConsistentIntegrateAndFire}


def spiking(rng, kind, channels, reach):
    """A neuron whose thresholds are of the size of its input."""
    theta = rng.integers(1, max(2, reach), channels)
    return NEURONS[kind](theta, theta // 2)


def fits(shape, convs):
    """Whether every convolution's kernel fits into what the one before it leaves."""
    size = shape[1:]
    for _, kernel, stride, padding, dilation, _ in convs:
        reach = dilation * (kernel - 1) + 1
        size = tuple((s + 2 * padding - reach) // stride + 1 for s in size)
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
    """Convolutions (C_out, kernel, stride, padding, dilation, groups), then dense layers."""
    rng = np.random.default_rng(seed)
    quantizer = InputQuantizer(shape, 1.0, bits=4, signed=signed_input)
    populations, source, here = [], "input", shape
    for index, (c_out, kernel, stride, padding, dilation, groups) in enumerate(convs):
        weight = rng.integers(low, high + 1, (c_out, here[0] // groups, kernel, kernel))
        synapse = ConvSynapse(
            source, weight, (stride,) * 2, (padding,) * 2, (dilation,) * 2, groups
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


def random_inputs(program, count, seed=0):
    """Graded spikes over the whole input range, int32 (count, ...)."""
    rng = np.random.default_rng(seed)
    span = program.input.range
    return rng.integers(span.low, span.high + 1, (count, *program.input.shape)).astype(np.int32)
