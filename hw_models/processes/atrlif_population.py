"""AtrlifPopulation: IF neurons and readouts on Lava's own ATRLIF.

ATRLIF without decay and without adaptation is IF with reset by subtraction that starts at half
its threshold (lava-nc 0.10.0, `atrlif/models.py`): `v' += 64 (a_in + bias)`, fires when
`v' - r >= theta'`, then `r += 2 theta'`. With `theta' = 32 threshold` and `v'` starting at
`64 v0 - 32 threshold` it is IF with any start and with one threshold per channel, as

    64 v = v' - r + 32 threshold

ATRLIF takes one threshold and one start per population. An `AtrlifKeeper` beside it writes the
others before local step 1 of each sample, reads `v'` and `r` after each step, and stops the run
if a value exceeds a register. A readout is a neuron that never fires.
"""

import typing as ty

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.atrlif.process import ATRLIF

from hw_models.local_time import LocalTime
from hw_models.recorder import Recorder
from hw_models.stock.atrlif_limits import NEVER, REGISTER, SCALE
from toolchain.errors import ValueRangeError

NO_MEMORY = 4095 / 4096
"""`delta_i` with which the current decays completely: the model adds 1/4096."""
QUIET_THRESHOLD = 65535
"""`theta_0` before the keeper writes the thresholds; multiplied by 64 it is never reached."""
BIAS_EXPONENT = 6
"""log2 of the scale of the model."""


class AtrlifPopulation(AbstractProcess):
    """A population of ATRLIF neurons.

    Parameters
    ----------
    shape:
        (W, H, C) or (F,).
    threshold:
        Integers, (C,); None for a readout.
    initial_potential, bias:
        Integers, (C,).
    clock:
        Local time of the layer; it has no sleep steps.
    recorder:
        Takes the spikes (None for a readout) and membrane potentials; None for no recording.

    Attributes
    ----------
    a_in:
        Summed currents.
    s_out:
        Unary spikes; a readout never sends any and is read by its recorder.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        threshold: np.ndarray | None,
        initial_potential: np.ndarray,
        bias: np.ndarray,
        clock: LocalTime,
        recorder: Recorder | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            shape=shape,
            threshold=threshold,
            initial_potential=initial_potential,
            bias=bias,
            clock=clock,
            recorder=recorder,
            name=name,
        )
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=AtrlifPopulation, protocol=LoihiProtocol)
@tag("fixed_pt", "stock")
class SubAtrlifPopulation(AbstractSubProcessModel):
    """The stock neurons, with their keeper beside them."""

    def __init__(self, proc: ty.Any) -> None:
        params = proc.proc_params
        shape, bias = params["shape"], params["bias"].astype(np.int32)
        self.neurons = ATRLIF(
            shape=shape,
            theta=0,
            theta_0=QUIET_THRESHOLD,
            theta_step=0,
            delta_i=NO_MEMORY,
            delta_v=0,
            delta_theta=0,
            delta_r=0,
            bias_mant=np.broadcast_to(bias, shape).copy(),
            bias_exp=BIAS_EXPONENT,
        )
        names = ("shape", "threshold", "initial_potential", "clock", "recorder")
        self.keeper = AtrlifKeeper(**{name: params[name] for name in names})
        for port in (self.neurons.a_in, self.keeper.a_in):
            proc.in_ports.a_in.connect(port)
        self.neurons.s_out.connect(proc.out_ports.s_out)
        self.neurons.s_out.connect(self.keeper.s_in)
        self.keeper.v.connect_var(self.neurons.v)
        self.keeper.r.connect_var(self.neurons.r)
        self.keeper.theta.connect_var(self.neurons.theta)


class AtrlifKeeper(AbstractProcess):
    """Sets ATRLIF neurons to their start for each sample, reads them and checks their range.

    Parameters are those of `AtrlifPopulation`.

    Attributes
    ----------
    a_in, s_in:
        Currents and spikes of the neurons in the same step.
    v, r, theta:
        The neurons' own variables.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        threshold: np.ndarray | None,
        initial_potential: np.ndarray,
        clock: LocalTime,
        recorder: Recorder | None,
    ) -> None:
        super().__init__(
            shape=shape,
            threshold=threshold,
            initial_potential=initial_potential,
            clock=clock,
            recorder=recorder,
        )
        self.a_in = InPort(shape=shape)
        self.s_in = InPort(shape=shape)
        self.v = RefPort(shape=shape)
        self.r = RefPort(shape=shape)
        self.theta = RefPort(shape=shape)


@implements(proc=AtrlifKeeper, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyAtrlifKeeper(PyLoihiProcessModel):
    """CPU model of `AtrlifKeeper`: reads and writes the neurons' variables between steps."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    v: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)
    r: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)
    theta: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.clock: LocalTime = proc_params["clock"]
        self.recorder: Recorder | None = proc_params["recorder"]
        shape, threshold = proc_params["shape"], proc_params["threshold"]
        self.fires = threshold is not None
        half = SCALE // 2 * threshold.astype(np.int64) if self.fires else 0
        start = SCALE * proc_params["initial_potential"].astype(np.int64) - half
        self.half = half
        self.initial = np.broadcast_to(start, shape).astype(np.int32)
        theta = half if self.fires else NEVER
        self.thresholds = np.broadcast_to(theta, shape).astype(np.int32)

    def run_spk(self) -> None:
        """Count one global step, which the neurons take at the same time."""
        self.current = self.a_in.recv()
        self.spikes = self.s_in.recv()

    def post_guard(self) -> bool:
        """Whether there is anything to read or to write after this step."""
        return self._now() is not None or self._starts_next()

    def run_post_mgmt(self) -> None:
        """Read the potentials of this step, then write the start of the next sample."""
        now = self._now()
        if now is not None:
            v, r = (port.read().astype(np.int64) for port in (self.v, self.r))
            membrane = v - r + self.half
            self._watch(v, r)
            if self.recorder:
                spikes = self.spikes if self.fires else None
                self.recorder.step(now, spikes, (membrane // SCALE).astype(np.int32))
        if self._starts_next():
            for port, values in ((self.v, self.initial), (self.theta, self.thresholds)):
                port.write(values)
                port.wait()
            self.r.write(np.zeros_like(self.initial))
            self.r.wait()

    def _now(self) -> tuple[int, int] | None:
        return self.clock.at(int(self.time_step))

    def _starts_next(self) -> bool:
        then = self.clock.at(int(self.time_step) + 1)
        return then is not None and then[1] == 1

    def _watch(self, v: np.ndarray, r: np.ndarray) -> None:
        """Raise ValueRangeError if a value exceeds its register.

        ATRLIF clips `v'` to +-(2^23 - 1), an odd value that is never reached otherwise; a current
        beyond 24 bits wraps.
        """
        current = SCALE * self.current.astype(np.int64)
        for what, values, held in (
            ("current", current, False),
            ("potential", v, bool((v % 2).any())),
            ("refractory state", r, False),
        ):
            low, high = int(values.min()), int(values.max())
            if held or not REGISTER.contains(low, high):
                raise ValueRangeError(
                    f"ATRLIF's {what} left its register at global step {self.time_step}",
                    found=f"{low} .. {high}",
                    allowed=f"inside {REGISTER}, of which {SCALE} are one weight unit",
                    remedy="run it on neurons of our own, or convert with fewer weight bits",
                )
