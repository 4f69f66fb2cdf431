"""Quantized activations a network is trained with, each with a spiking counterpart."""

from toolchain.activations.cqrelu import CQReLU, cqrelu
from toolchain.activations.nq import NQ
from toolchain.activations.qcfs import QCFS, qcfs
from toolchain.activations.quantized import Mode, QuantizedActivation, activation_mode

ACTIVATIONS: dict[str, type[QuantizedActivation]] = {"nq": NQ, "qcfs": QCFS, "cqrelu": CQReLU}
IF_ACTIVATIONS = ("nq", "qcfs")
"""Those whose spiking counterpart is the IF neuron, started at half its threshold."""

__all__ = [
    "ACTIVATIONS",
    "IF_ACTIVATIONS",
    "NQ",
    "QCFS",
    "CQReLU",
    "Mode",
    "QuantizedActivation",
    "activation_mode",
    "cqrelu",
    "qcfs",
]
