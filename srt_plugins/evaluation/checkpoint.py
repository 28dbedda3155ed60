"""Weights from a file, without running code that the file may hold."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, SRTError

_SHOWN = 5


@dataclass(frozen=True)
class LoadReport:
    """Keys that did not meet: ``missing`` in the file, ``unexpected`` by the model."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def warning(self) -> str | None:
        """One line that lists the first of them, None where all keys met."""
        parts = [
            f"{len(keys)} {what} ({listed(keys)})"
            for keys, what in (
                (self.missing, "missing from the checkpoint and left at random"),
                (self.unexpected, "unknown to the model and ignored"),
            )
            if keys
        ]
        return "weights: " + "; ".join(parts) if parts else None


def load_weights(model: nn.Module, path: str | Path, trust: bool = False) -> LoadReport:
    """Load a checkpoint's ``state_dict`` (or a bare one) into a model.

    Args:
        model: gets the weights, in place.
        path: file written by ``torch.save``.
        trust: allow a file whose loading runs code; only for files that you trust.

    Raises:
        ConfigError: no such file.
        CheckpointError: not a checkpoint, needs ``trust``, or fits nothing of the model.
    """
    weights = read_weights(path, trust)
    own = model.state_dict()
    if not set(own) & set(weights):
        raise CheckpointError(
            f"Expected {path} to hold weights of this {type(model).__name__}, such as "
            f"{next(iter(own), None)!r}; its keys are {listed(list(weights))}. Check that config "
            "and checkpoint belong together."
        )
    try:
        result = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        detail = "; ".join(line.strip() for line in str(error).splitlines()[1 : 1 + _SHOWN])
        raise CheckpointError(
            f"Expected {path} to fit the model of the config: {detail or error}. Check that config "
            "and checkpoint belong together."
        ) from error
    return LoadReport(tuple(result.missing_keys), tuple(result.unexpected_keys))


def read_weights(path: str | Path, trust: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint by key, without the ``module.`` of data-parallel training."""
    if not Path(path).is_file():
        raise ConfigError(f"Expected checkpoint to be a file, got {path}, which does not exist.")
    with told_by_us(path, trust):
        content: Any = torch.load(path, map_location="cpu", weights_only=not trust)
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(weights, Mapping):
        raise CheckpointError(
            f"Expected {path} to hold a state_dict, got {type(weights).__name__}; save "
            "{'state_dict': model.state_dict()}."
        )
    tensors = {str(k): v for k, v in weights.items() if isinstance(v, Tensor)}
    return {key.removeprefix("module."): value for key, value in tensors.items()}


@contextmanager
def told_by_us(path: str | Path, trust: bool) -> Iterator[None]:
    """Turn what reading a checkpoint raises into a :class:`CheckpointError`."""
    try:
        yield
    except SRTError:
        raise
    except pickle.UnpicklingError as error:
        if trust or _unreadable(error):
            raise CheckpointError(f"{path} is not a checkpoint: no file of torch.save.") from error
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({named.group(1)})" if named else ""
        raise CheckpointError(
            f"{path} holds more than plain tensors{what}, and loading it may run code from the "
            "file. If you trust it, use --trust-checkpoint (trust_checkpoint=True)."
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {_first_line(error)}.") from error


def listed(keys: list[str] | tuple[str, ...]) -> str:
    """The first keys, and how many more there are."""
    more = f", … {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return (", ".join(repr(k) for k in keys[:_SHOWN]) or "none") + more


def _unreadable(error: Exception) -> bool:
    """Whether torch failed to read the file, rather than refused on purpose."""
    return any(text in str(error) for text in ("Unsupported operand", "invalid load key"))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
