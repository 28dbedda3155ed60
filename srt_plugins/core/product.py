"""What the alignment's arithmetic needs: full float32 products, in place where that is allowed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

# Pairs of parts (of the left, of the right operand) whose products reach float32's last bit.
_PAIRS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
# Elements to work on at a time: on a CPU what stays in cache, elsewhere what fills the device.
_BAND_CPU, _BAND = 1 << 20, 1 << 24


def operands(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Operands whose matrix product is ``left @ right`` in full float32.

    Where the user lets torch round float32 operands (TF32 on CUDA, bfloat16 on some CPUs), each is
    split into three parts of 8 bits, which rounding leaves as they are, laid side by side along the
    contracted axis. The user's setting is only read: it belongs to the whole process, and newer
    versions of torch refuse to work after it was changed by its older name.
    """
    if left.dtype != torch.float32 or not _rounded():
        return left, right
    a, b = _parts(left), _parts(right)
    return torch.cat([a[i] for i, _ in _PAIRS], -1), torch.cat([b[j] for _, j in _PAIRS], -2)


def _parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three float32 tensors that bfloat16 can hold, and whose sum is ``x``."""
    # Gradients take the last one, which is not cast.
    first = x.detach().bfloat16().to(x)
    rest = x - first
    second = rest.detach().bfloat16().to(x)
    return first, second, rest - second


def _rounded() -> bool:
    """True where torch may round the operands of float32 products."""
    try:
        if torch.get_float32_matmul_precision() != "highest":
            return True
    except RuntimeError:  # torch >= 2.9 does not tell after its newer names were used
        return True
    cpu = getattr(torch.backends.mkldnn, "matmul", None)
    newer = (getattr(b, "fp32_precision", "none") for b in (torch.backends.cuda.matmul, cpu))
    return any(name not in ("none", "ieee") for name in newer)


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """Autocast would run the alignment in half precision; the meta device has none."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def is_tracing() -> bool:
    """True while torch.jit records a trace, where sizes are tensors and loops are unrolled."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def in_place(*tensors: Tensor) -> bool:
    """True where results may be written in place: no gradients, and no trace being recorded."""
    return not is_tracing() and not (
        torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    )


def band_size(device: torch.device) -> int:
    """Elements to work on at a time."""
    return _BAND_CPU if device.type == "cpu" else _BAND


def bands(count: int, each: int, device: torch.device) -> list[slice]:
    """``count`` channels in runs of about as many elements as are best worked on at a time.

    Args:
        each: elements per channel.
    """
    step = max(1, band_size(device) // max(1, each))
    return [slice(c, min(c + step, count)) for c in range(0, count, step)]
