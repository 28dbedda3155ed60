"""The device, and versions and hardware for the record of a comparison; no host names."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from .checkpoint import LoadReport
from .cost import memory_kind

_PACKAGES = (
    *("srt-plugins", "torch", "numpy"),
    *("mmengine", "mmsegmentation", "mmcv", "mmcv-lite"),
    *("detectron2", "fvcore", "pycocotools"),
    *("transformers", "torchvision", "pillow"),
)


def chosen_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; for None a GPU if there is one.

    Raises:
        ConfigError: no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(
            f"Expected device to be one such as 'cpu' or 'cuda:0', got {device!r}."
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"Expected a device that is there, got {device} without CUDA; use cpu.")
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> str:
    """The device in words, such as ``"Intel Xeon, 2 cores, 1 thread"``."""
    threads = torch.get_num_threads()
    cpu = f"{_cpu()}, {os.cpu_count()} cores, {threads} thread" + ("s" if threads != 1 else "")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {cpu}"
    return cpu


def circumstances(loaded: LoadReport, device: torch.device) -> dict[str, Any]:
    """What a comparison's record says of weights, machine and software."""
    return {
        "missing_keys": list(loaded.missing),
        "unexpected_keys": list(loaded.unexpected),
        "device": str(device),
        "peak_memory_is": memory_kind(device),
        "hardware": hardware(device),
        "versions": versions(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
