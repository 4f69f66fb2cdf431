"""Trained networks, the input of `convert`: a module, a checkpoint folder, or a named network.

A named network is FILE.onnx, FILE.py:FACTORY, package.module:FACTORY or model:NAME. The last is one
of `toolchain.learning.models` with plain ReLUs, for weights that torchvision or timm trained.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import __version__
from toolchain.errors import CheckpointError, DataError, UnsupportedModuleError
from toolchain.files import file_sha256
from toolchain.user_code import home_of, is_module_name, load_source, user_code

if TYPE_CHECKING:
    from torch import Tensor, nn

    from toolchain.learning.data import Samples
    from toolchain.learning.training.checkpoint import TrainedModel
    from toolchain.program.float_program import FloatProgram
    from toolchain.program.input_quantizer import InputQuantizer


MODEL = "model"
"""Prefix of the name of a network of `toolchain.learning.models`."""


ONNX = ".onnx"
"""Ending of the name of an ONNX file."""


PIXELS = (0.0, 1.0)
"""Range of real sample values that is assumed if none is given or measured."""


@dataclass(frozen=True)
class InputDescription:
    """The user's description of a network's input; None where nothing is given.

    Attributes
    ----------
    usual_shape:
        The shape where neither the user nor the network gives one.
    per_step:
        Whether a sample has a tensor of `shape` for each step.
    """

    shape: tuple[int, ...] | None
    interval: tuple[float, float] | None
    bits: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    usual_shape: tuple[int, ...] | None = None
    per_step: bool = False

    @property
    def tells_values(self) -> bool:
        """Whether the user gave a range or a normalisation."""
        return self.interval is not None or set(self.mean) != {0.0} or set(self.std) != {1.0}

    def described(self, samples: Samples | None) -> InputDescription:
        """The description, with shape and range of calibration samples where the user gave none."""
        if samples is None:
            return replace(self, shape=self.shape or self.usual_shape)
        shape, interval = (
            self.shape or self._shape_of(samples),
            self.interval or interval_of(samples),
        )
        return replace(self, shape=shape, interval=interval)

    def of_data(self, samples: Samples) -> InputDescription:
        """The description for a network that gets `samples`, of which sequences go in by steps."""
        per_step = samples.steps is not None
        shape = samples.sample_shape[1:] if per_step else samples.sample_shape
        return replace(self, usual_shape=shape, per_step=per_step)

    def _shape_of(self, samples: Samples) -> tuple[int, ...]:
        """Shape of the calibration samples, of one step if they have several."""
        shape = samples.sample_shape
        if self.per_step == (samples.steps is not None):
            return shape[1:] if self.per_step else shape
        raise DataError(
            "the samples do not have a tensor for each step"
            if self.per_step
            else "the samples have a tensor for each step",
            node=samples.name,
            found=("N", *shape),
            allowed="(N, T, C, H, W)" if self.per_step else "(N, C, H, W) or (N, F)",
            remedy="input_shape=, the shape of one step, if these are others without some axes"
            if self.per_step
            else "convert takes them with input_per_step=True",
        )

    def check_shape(self, node: str, shape: tuple[int, ...]) -> None:
        """Raise CheckpointError if the user gave a shape other than that of `node`."""
        if self.shape not in (None, shape):
            raise CheckpointError(
                "takes samples of another shape, which it knows itself",
                node=node,
                found=",".join(str(size) for size in self.shape or ()),
                allowed=",".join(str(size) for size in shape),
                remedy="leave input_shape= out",
            )


def interval_of(samples: Samples) -> tuple[float, float] | None:
    """Lowest and highest value of samples, 0 included; None if both lie in `PIXELS`."""
    low, high = samples.value_range
    if not (isfinite(low) and isfinite(high)):
        raise DataError("samples hold NaN or infinity", node=samples.name)
    if low >= PIXELS[0] and high <= PIXELS[1]:
        return None
    return (min(low, 0.0), max(high, 0.0))


@dataclass(frozen=True)
class TrainedNetwork:
    """A network ready for conversion.

    Attributes
    ----------
    model:
        The module, in evaluation mode, or the float program that a file contains.
    levels:
        Quantization levels of its trained activations, if known.
    notes:
        What the user should know about reading it.
    checkpoint:
        The checkpoint of `train` or `detector train` that it was, if any.
    """

    name: str
    model: nn.Module | FloatProgram
    quantizer: InputQuantizer
    levels: int | None
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()
    checkpoint: TrainedModel[Any] | None = None


def of_module(model: nn.Module, description: InputDescription) -> TrainedNetwork:
    """A network from the caller's module, which stays unchanged.

    Raises
    ------
    UnsupportedModuleError
        If the input shape is not given.
    """
    from torch import Tensor

    from toolchain.conversion.frontend.exported import from_export
    from toolchain.conversion.frontend.input_form import of_images
    from toolchain.conversion.frontend.user_module import check_readable, unwrapped
    from toolchain.learning.training.state_file import tensors_sha256

    model = unwrapped(model)
    check_readable(model)
    kind, model = type(model).__name__, from_export(model)
    if description.shape is None:
        raise UnsupportedModuleError(
            "the input shape is needed",
            node=kind,
            remedy="input_shape=(3, 32, 32), or calibrate=DATA",
        )
    tensors = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    provenance = {
        "spikeport": __version__,
        "module": kind,
        "weights_sha256": tensors_sha256(tensors),
    }
    model, shape, notes = of_images(model, description.shape)
    quantizer = _quantizer(shape, description)
    return TrainedNetwork(kind.lower(), model, quantizer, None, provenance, notes)


def of_float_program(
    program: FloatProgram,
    file: Path,
    description: InputDescription,
    samples: Samples | None = None,
) -> TrainedNetwork:
    """A network from the float program in `file`, which has its own input shape.

    Raises
    ------
    CheckpointError
        If `description` gives another shape.
    """
    description.check_shape(str(file), program.input.shape)
    provenance = {
        "spikeport": __version__,
        "file": file.name,
        "weights_sha256": file_sha256(file),
    }
    quantizer = _quantizer(program.input.shape, description.described(samples))
    return TrainedNetwork(file.stem, program, quantizer, None, provenance)


def load_network(
    source: str,
    weights: Path | None,
    description: InputDescription,
    samples: Samples | None = None,
    task: str | None = None,
) -> TrainedNetwork:
    """Load `source`: a checkpoint folder, or what the module's docstring calls a named network.

    The shape and range of the calibration `samples` are used if neither `description` nor the
    network gives them. A checkpoint must be for `task`, if one is given.

    Raises
    ------
    SpikeportError
        If the network cannot be loaded.
    """
    if Path(source).suffix == ONNX:
        return _from_onnx(Path(source), weights, description, samples)
    name, separator, factory = source.rpartition(":")
    if name == MODEL:
        return _from_name(factory, weights, description.described(samples))
    is_factory = name.endswith(".py") or (is_module_name(name) and not Path(source).exists())
    if separator and is_factory:
        return _from_factory(name, factory, weights, description.described(samples))
    folder = Path(source)
    _check_is_checkpoint(folder)
    if weights is not None:
        raise CheckpointError(
            "weights= goes with FILE.py:FACTORY and model:NAME; a checkpoint folder has its own",
            node=source,
        )
    if description.tells_values:
        raise CheckpointError(
            "a checkpoint knows the range and the normalisation of its input",
            node=source,
            remedy="leave out input_range=, mean= and std=",
        )
    from toolchain.learning.detection.checkpoint import load_detector
    from toolchain.learning.training.checkpoint import DETECTION, load_checkpoint, read_checkpoint

    load = load_detector if read_checkpoint(folder, task)[0].task == DETECTION else load_checkpoint
    network = network_of(load(folder), folder, description.bits)
    if description.per_step:
        quantizer = replace(network.quantizer, per_step=True)
        network = replace(network, quantizer=quantizer)
    description.check_shape(source, network.quantizer.shape)
    return network


def _check_is_checkpoint(path: Path) -> None:
    """Raise CheckpointError, with a remedy, for a file that is no checkpoint folder."""
    if path.suffix == ".py":
        raise UnsupportedModuleError(
            "a file needs the name of a factory in it",
            node=str(path),
            found="none",
            allowed=", ".join(f"{path}:{c}" for c in load_source(str(path)).callables())
            or "a function that returns the network, which this file does not define",
            remedy=f"{path}:FACTORY, with input_shape=",
        )
    if not path.is_file():
        return
    remedies = {
        ".net": f"it is converted already: spikeport run {path} --data SOURCE -o REC.npz",
        ".nir": f"give what it becomes: spikeport convert {path} -o NET.net",
        ".npz": "give the network: a checkpoint folder, or FILE.py:FACTORY",
    }
    weights = f'give what makes the network as well: FILE.py:FACTORY, weights="{path}"'
    raise CheckpointError(
        "a file is no checkpoint folder",
        node=str(path),
        remedy=remedies.get(path.suffix, weights),
    )


def network_of(checkpoint: TrainedModel[Any], folder: Path, bits: int = 8) -> TrainedNetwork:
    """The network of a checkpoint, with the input quantizer its data call for."""
    provenance = {"spikeport": __version__, **checkpoint.provenance()}
    name, levels = folder.resolve().name, checkpoint.config.levels
    quantizer = checkpoint.quantizer(bits)
    return TrainedNetwork(
        name, checkpoint.model, quantizer, levels, provenance, checkpoint=checkpoint
    )


def _from_name(name: str, weights: Path | None, description: InputDescription) -> TrainedNetwork:
    """A network of `learning.models` with plain ReLUs and max pools, as published elsewhere."""
    from torch import nn

    from toolchain.learning.models import build_model, check_name
    from toolchain.learning.training.state_dict import load_weights, read_tensors

    node = f"{MODEL}:{name}"
    check_name(name)
    if weights is None or description.shape is None:
        raise CheckpointError(
            "a network by name needs weights and an input shape",
            node=node,
            remedy='weights="FILE.pth", input_shape=(3, 224, 224)',
        )
    last = [t for t in read_tensors(weights).values() if t.ndim == 2]
    if not last:
        raise CheckpointError("the weights have no dense layer at the end", node=str(weights))
    model = build_model(name, description.shape, len(last[-1]), nn.ReLU, pooling="max")
    load_weights(model, weights)
    provenance = {
        "spikeport": __version__,
        "model": name,
        "weights_sha256": file_sha256(weights),
    }
    quantizer = _quantizer(description.shape, description)
    return TrainedNetwork(name, model.eval(), quantizer, None, provenance)


def _from_onnx(
    file: Path, weights: Path | None, description: InputDescription, samples: Samples | None
) -> TrainedNetwork:
    """The network in an ONNX file, which may leave the input shape open."""
    from toolchain.conversion.frontend.input_form import of_images
    from toolchain.conversion.frontend.onnx_import.module import open_onnx
    from toolchain.conversion.frontend.onnx_import.runtime import compared
    from toolchain.learning.training.state_file import tensors_sha256

    if weights is not None:
        raise CheckpointError("an ONNX file has its weights", node=str(file), found=weights)
    described = description.described(samples)
    model = open_onnx(file, described.shape)
    description.check_shape(str(file), model.sample_shape)
    provenance = {
        "spikeport": __version__,
        "file": file.name,
        "weights_sha256": tensors_sha256(model.state_dict()),
    }
    images, shape, notes = of_images(model, model.sample_shape)
    quantizer = _quantizer(shape, described)
    few = compared(model, file, _some_samples(quantizer, samples, model.sample_shape))
    notes = (*model.notes, *notes, few)
    return TrainedNetwork(file.stem, images, quantizer, None, provenance, notes)


def _some_samples(
    quantizer: InputQuantizer, samples: Samples | None, shape: tuple[int, ...]
) -> Tensor:
    """Normalised samples, float64 (n, *shape): the first given ones, or seeded ones."""
    import numpy as np
    import torch

    from toolchain.conversion.frontend.onnx_import.runtime import SAMPLES

    if samples is not None:
        spikes = quantizer.mean_inputs(quantizer.quantize(samples.take(slice(0, SAMPLES)).real()))
    else:
        bounds = (quantizer.range.low, quantizer.range.high + 1)
        spikes = np.random.default_rng(0).integers(*bounds, (SAMPLES, *quantizer.shape))
    return torch.from_numpy(quantizer.scale * spikes.reshape(-1, *shape))


def _from_factory(
    file: str, factory: str, weights: Path | None, description: InputDescription
) -> TrainedNetwork:
    from toolchain.conversion.frontend.exported import from_export
    from toolchain.conversion.frontend.input_form import of_images
    from toolchain.learning.training.own_network import made
    from toolchain.learning.training.state_dict import load_weights

    node = f"{file}:{factory}"
    source = load_source(file)
    if description.shape is None:
        raise UnsupportedModuleError(
            "the input shape is needed",
            node=node,
            remedy="input_shape=(3, 32, 32), or calibrate=DATA",
        )
    provenance: dict[str, Any] = {"spikeport": __version__, "factory": factory}
    if source.file is not None:
        provenance["factory_file_sha256"] = file_sha256(source.file)
    with ThreadPoolExecutor(1) as pool:
        # Making a network draws random weights, and other threads may run at the same time.
        hashed = pool.submit(file_sha256, weights) if weights is not None else None
        model = made(source, factory, node)
        if weights is not None and hashed is not None:
            with user_code("the network does not take its weights", node, home_of(model)):
                load_weights(model, weights)
            provenance["weights_sha256"] = hashed.result()
    with user_code("the network cannot be put into evaluation mode", node, home_of(model)):
        model = from_export(model).eval()
    model, shape, notes = of_images(model, description.shape)
    quantizer = _quantizer(shape, description)
    return TrainedNetwork(factory, model, quantizer, None, provenance, notes)


def _quantizer(shape: tuple[int, ...], description: InputDescription) -> InputQuantizer:
    """A quantizer for samples of this shape in the described interval, by default 0 .. 1."""
    from toolchain.program.input_quantizer import InputQuantizer

    low, high = description.interval or PIXELS
    return InputQuantizer.for_interval(
        shape,
        low,
        high,
        bits=description.bits,
        mean=description.mean,
        std=description.std,
        levels=255 if description.interval is None else None,
        per_step=description.per_step,
    )
