"""Peak dense bf16 FLOP/s of GPUs, tensor cores with float32 accumulation, no sparsity, from the vendors' data
sheets. Where a sheet gives the figure with 2:4 sparsity alone, this is half of it."""

from __future__ import annotations

from dataclasses import dataclass

from ablate.schema import nearest
from ablate.types import UserError


@dataclass(frozen=True)
class GPU:
    """peak: FLOP/s. source: the data sheet."""

    name: str
    peak: float
    source: str


GPUS = (
    GPU("A10", 125e12, "NVIDIA A10 data sheet"),
    GPU("A40", 149.7e12, "NVIDIA A40 data sheet"),
    GPU("A100", 312e12, "NVIDIA A100 data sheet"),
    GPU("L4", 121e12, "NVIDIA L4 data sheet (242 with sparsity)"),
    GPU("L40", 181e12, "NVIDIA L40 data sheet"),
    GPU("L40S", 362e12, "NVIDIA L40S data sheet"),
    GPU("H100", 989e12, "NVIDIA H100 data sheet, SXM (1,979 with sparsity)"),
    GPU("H100 PCIe", 756e12, "NVIDIA H100 data sheet, PCIe (1,513 with sparsity)"),
    GPU("H100 NVL", 835e12, "NVIDIA H100 data sheet, NVL (1,671 with sparsity)"),
    GPU("H200", 989e12, "NVIDIA H200 data sheet, SXM (1,979 with sparsity)"),
    GPU("GH200", 989e12, "NVIDIA GH200 data sheet (1,979 with sparsity)"),
    GPU("B200", 2250e12, "NVIDIA HGX B200 data sheet (4,500 with sparsity)"),
    GPU("B300", 2250e12, "NVIDIA HGX B300 data sheet (4,500 with sparsity)"),
    GPU("GB200", 2500e12, "NVIDIA GB200 NVL72 data sheet (5,000 with sparsity)"),
    GPU("RTX 3090", 71e12, "NVIDIA GA102 white paper"),
    GPU("RTX 4090", 165.2e12, "NVIDIA Ada white paper"),
    GPU("RTX 5090", 209.5e12, "NVIDIA RTX Blackwell white paper"),
    GPU("MI250X", 383e12, "AMD Instinct MI250X data sheet"),
    GPU("MI300X", 1307.4e12, "AMD Instinct MI300X data sheet"),
)


def find(name: str) -> GPU:
    """The GPU of this name; case, spaces and dashes do not matter. Raises UserError with the nearest."""
    table = {_plain(gpu.name): gpu for gpu in GPUS}
    wanted = _plain(name)
    for spelling in (wanted, f"rtx{wanted}"):
        if spelling in table:
            return table[spelling]
    raise UserError(f"unknown gpu={name}; {nearest(name.upper(), (gpu.name for gpu in GPUS))}")


def _plain(name: str) -> str:
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    return plain.removeprefix("nvidia").removeprefix("amd").removeprefix("geforce")
