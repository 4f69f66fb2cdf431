"""A network as a user gives it, opened: one way for all commands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from spikeport.samples import Data, has_boxes, open_samples
from spikeport.trained_network import (
    InputDescription,
    TrainedNetwork,
    interval_of,
    load_network,
    of_float_program,
    of_module,
)
from toolchain.canonical import canonical_json
from toolchain.conversion.frontend.adapters import load_adapter_file
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.errors import ConversionError, UnsupportedModuleError
from toolchain.learning.data import Samples, input_spikes
from toolchain.learning.data.dataset import choose_samples
from toolchain.learning.training.state_file import tensors_sha256

if TYPE_CHECKING:
    from toolchain.program.input_quantizer import InputQuantizer

CALIBRATION_SAMPLES = 256
CALIBRATION_SEED = 0
ASSUMED_INPUT = (
    "samples are taken as 0 .. 1 (pixel / 255) and as they are: if the network was trained on "
    "normalised samples, give mean= and std=; on another range, input_range="
)
RANDOM_WEIGHTS = (
    "no weights= were given: the weights are those FACTORY returns, random ones unless it loads "
    "its own"
)
_NIR = ".nir"


@dataclass(frozen=True)
class ForeignNir:
    """How the NIR graph of another tool is read: steps, and the reset ("subtract", "zero")."""

    steps: int
    reset: str | None = None


@dataclass(frozen=True)
class OpenNetwork:
    """A network with its calibration data, ready for conversion.

    Attributes
    ----------
    notes:
        What the user should know: how it was read, and what was assumed.
    """

    trained: TrainedNetwork
    calibration: Calibration | None
    notes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of all that a conversion depends on: weights, origin, input and calibration."""
        if not isinstance(self.trained.model, nn.Module):
            raise TypeError(type(self.trained.model))
        calibration = None if self.calibration is None else self.calibration.sha256
        if self.trained.checkpoint is not None and calibration is None:
            return self.trained.checkpoint.tensors_sha256
        described = {
            "weights": tensors_sha256(self.trained.model.state_dict()),
            "provenance": self.trained.provenance,
            "input": self.trained.quantizer.describe(),
            "calibration": calibration,
        }
        return hashlib.sha256(canonical_json(described).encode()).hexdigest()


@dataclass(frozen=True)
class GivenNetwork:
    """What a user says of a network; the fields are arguments of `convert`.

    One that was given by its name can be opened in another process.

    Attributes
    ----------
    said:
        `input_shape`, `input_range`, `input_bits`, `mean`, `std` and `input_per_step`.
    """

    network: nn.Module | str | Path
    weights: str | Path | None
    said: InputDescription
    calibrate: Data | None = None
    calibration_samples: int = CALIBRATION_SAMPLES
    calibration_seed: int = CALIBRATION_SEED
    adapters: tuple[str | Path, ...] = ()

    def open(
        self, name: str | None = None, nir: ForeignNir | None = None, task: str | None = None
    ) -> OpenNetwork:
        """Load the network and its calibration samples.

        Parameters
        ----------
        name:
            Name of the network instead of its own.
        nir:
            How a NIR graph is read, where one may be given.
        task:
            What a checkpoint folder must be for; None for anything.

        Raises
        ------
        SpikeportError
            If the network or the samples cannot be loaded.
        """
        for file in self.adapters:
            load_adapter_file(Path(file))
        samples, calibration = None, None
        if self.calibrate is not None and not has_boxes(self.calibrate):
            samples = self._samples(self.calibrate)
        trained = self._trained(samples, nir, task)
        if name is not None:
            trained = replace(trained, name=name)
        if self.calibrate is not None:
            calibration = self._calibration(samples or self.calibrate, trained.quantizer)
        return OpenNetwork(trained, calibration, (*trained.notes, *self._unsaid(trained, samples)))

    def _trained(
        self, samples: Samples | None, nir: ForeignNir | None, task: str | None
    ) -> TrainedNetwork:
        """The trained network, loaded from its path or name, or made from the module itself."""
        network = self.network
        if isinstance(network, nn.Module):
            if self.weights is not None:
                raise ConversionError(
                    "a module has its weights", remedy="model.load_state_dict(...) before"
                )
            return of_module(network, self.said.described(samples))
        if not isinstance(network, str | Path):
            raise UnsupportedModuleError(
                "no network",
                found=type(network).__name__,
                allowed="an nn.Module, a checkpoint folder, FILE.py:FACTORY, model:NAME, FILE.onnx "
                "or FILE.nir",
            )
        if Path(network).suffix == _NIR and nir is not None:
            from exports.nir import Reset, read_foreign_nir

            reset = None if nir.reset is None else Reset(nir.reset)
            program, notes = read_foreign_nir(Path(network), nir.steps, reset)
            trained = of_float_program(program, Path(network), self.said, samples)
            return replace(trained, notes=notes)
        file = None if self.weights is None else Path(self.weights)
        return load_network(str(network), file, self.said, samples, task)

    def _samples(self, data: Data) -> Samples:
        """At most the wanted samples, from the training split if the source names none."""
        samples = open_samples(
            data, split="train", most=self.calibration_samples, seed=self.calibration_seed
        )
        assert isinstance(samples, Samples)
        return samples

    def _calibration(self, data: Data, quantizer: InputQuantizer) -> Calibration:
        if isinstance(data, Samples) and not has_boxes(data):
            return Calibration(data.name, input_spikes(quantizer, data))
        images = open_samples(data, split="train", image_size=quantizer.image_size)
        rows = choose_samples(len(images), self.calibration_samples, self.calibration_seed)
        return Calibration(images.name, input_spikes(quantizer, images)[rows])

    def _unsaid(self, trained: TrainedNetwork, samples: Samples | None) -> list[str]:
        """Notes about the assumptions that the user did not state."""
        from_factory = self.weights is None and "factory" in trained.provenance
        notes = [RANDOM_WEIGHTS] if from_factory else []
        if self.said.tells_values or trained.checkpoint is not None:
            return notes
        interval = None if samples is None else interval_of(samples)
        if samples is None or interval is None:
            return [*notes, ASSUMED_INPUT]
        return [
            *notes,
            f"samples are taken as {interval[0]:.6g} .. {interval[1]:.6g}, which those of "
            f"{samples.name} span: others outside are refused; input_range= says another range",
        ]


def described(
    shape: int | Sequence[int] | None = None,
    interval: tuple[float, float] | None = None,
    bits: int = 8,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    *,
    per_step: bool = False,
) -> InputDescription:
    """The user's description of a sample, see `convert`."""
    sizes = (shape,) if isinstance(shape, int) else None if shape is None else tuple(shape)
    return InputDescription(sizes, interval, bits, _numbers(mean), _numbers(std), None, per_step)


def _numbers(values: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(values, int | float):
        return (float(values),)
    return tuple(float(value) for value in values)
