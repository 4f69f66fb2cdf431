"""Quantized activations a network is trained with, each with a spiking counterpart."""

from toolchain.learning.activations.cqrelu import CQReLU
from toolchain.learning.activations.nq import NQ
from toolchain.learning.activations.qcfs import QCFS
from toolchain.learning.activations.quantized import (
    ActivationMode,
    QuantizedActivation,
    activation_mode,
)
from toolchain.learning.activations.straight_through import cqrelu, qcfs

ACTIVATIONS: dict[str, type[QuantizedActivation]] = {"nq": NQ, "qcfs": QCFS, "cqrelu": CQReLU}
IF_ACTIVATIONS = ("nq", "qcfs")
"""Those whose spiking counterpart is the IF neuron, started at half its threshold."""

__all__ = [
    "ACTIVATIONS",
    "IF_ACTIVATIONS",
    "NQ",
    "QCFS",
    "ActivationMode",
    "CQReLU",
    "QuantizedActivation",
    "activation_mode",
    "cqrelu",
    "qcfs",
]
