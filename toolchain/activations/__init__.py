"""Quantized activations a network is trained with, each with a spiking counterpart."""

from toolchain.activations.cqrelu import CQReLU, cqrelu
from toolchain.activations.nq import NQ
from toolchain.activations.qcfs import QCFS, qcfs
from toolchain.activations.quantized import Mode, QuantizedActivation, activation_mode

ACTIVATIONS: dict[str, type[QuantizedActivation]] = {"nq": NQ, "qcfs": QCFS, "cqrelu": CQReLU}

__all__ = [
    "ACTIVATIONS",
    "NQ",
    "QCFS",
    "CQReLU",
    "Mode",
    "QuantizedActivation",
    "activation_mode",
    "cqrelu",
    "qcfs",
]
