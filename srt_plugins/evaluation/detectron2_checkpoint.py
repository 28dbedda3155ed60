"""Checkpoints through Detectron2's own checkpointer, without running code that they may hold."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..errors import CheckpointError
from .checkpoint import LoadReport, listed, told_by_us

# All that the model zoo's pickles of numpy arrays need.
_PLAIN = {
    *(("collections", "OrderedDict"), ("_codecs", "encode")),
    *(("numpy", "ndarray"), ("numpy", "dtype")),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
}


def load_detectron2_weights(model: nn.Module, path: str | Path, trust: bool = False) -> LoadReport:
    """Load a checkpoint with Detectron2's ``DetectionCheckpointer`` and its matching of names.

    Takes what Detectron2's trainers write (of a training state, only the weights are read), model
    zoo files (``.pkl`` of numpy arrays) and bare state dicts.

    Args:
        model: gets the weights, in place.
        path: the checkpoint.
        trust: allow a file whose loading runs code; only for files that you trust.

    Raises:
        CheckpointError: not a checkpoint, needs ``trust``, or fits nothing of the model.
    """
    checkpointer = SafeCheckpointer(model, trust)
    with told_by_us(path, trust):
        checkpointer.load(str(path))
    found = checkpointer.incompatible
    own = model.state_dict()
    misfits = [name for name, *_ in found.incorrect_shapes]
    # Not those that are not missing: frozen norms make up statistics of their own.
    if not set(own) & {*checkpointer.matched, *misfits}:
        raise CheckpointError(
            f"Expected {path} to hold weights of this {type(model).__name__}, such as "
            f"{next(iter(own))!r}; its keys are {listed(checkpointer.keys)}. Check that config and "
            "checkpoint belong together."
        )
    if found.incorrect_shapes:
        shapes = "; ".join(f"{k} is {a}, not {b}" for k, a, b in found.incorrect_shapes[:3])
        raise CheckpointError(
            f"Expected {path} to fit the model of the config: {shapes}. Check that config and "
            "checkpoint belong together."
        )
    return LoadReport(tuple(found.missing_keys), tuple(found.unexpected_keys))


class SafeCheckpointer(DetectionCheckpointer):
    """Reads weights only, and remembers which keys did not meet.

    Modifications: ``.pkl`` files may hold numpy arrays and plain containers; of other files,
    objects that are no tensors are replaced by inert ones (from torch 2.6 on; before, such a file
    is refused). A ``state_dict`` is taken where there is no ``model``.
    """

    def __init__(self, model: nn.Module, trust: bool = False) -> None:
        super().__init__(model, save_to_disk=False)
        self.trust = trust
        self.keys: list[str] = []
        self.matched: dict[str, Any] = {}
        self.incompatible: Any = None

    def _load_file(self, filename: str) -> dict:
        if filename.endswith(".pkl") and not self.trust:
            _check_plain(filename)
        if filename.endswith(".pyth"):  # pycls; the base class would not read it safely
            weights = self._torch_load(filename)["model_state"]
            return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
        loaded: dict = super()._load_file(filename)
        return loaded

    def _torch_load(self, filename: str) -> Any:
        with nullcontext() if self.trust else _inert_objects(filename):
            content = torch.load(filename, map_location="cpu", weights_only=not self.trust)
        if not isinstance(content, Mapping):
            raise CheckpointError(
                f"Expected {filename} to hold a state dict, got {type(content).__name__}; save "
                "{'model': model.state_dict()}."
            )
        if "model" not in content and isinstance(content.get("state_dict"), Mapping):
            content = {"model": content["state_dict"]}
        return dict(content)

    def _load_model(self, checkpoint: Any) -> Any:
        self.keys = [str(key) for key in checkpoint["model"]]
        self.incompatible = super()._load_model(checkpoint)
        return self.incompatible

    def _convert_ndarray_to_tensor(self, state_dict: dict) -> None:
        super()._convert_ndarray_to_tensor(state_dict)
        self.matched = state_dict  # under the model's names, before prefixes are taken off in place

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Nothing: they are in the comparison's notes."""


def _inert_objects(path: str) -> AbstractContextManager[Any]:
    """While active, ``torch.load(weights_only=True)`` makes inert stand-ins for other objects.

    Training states hold objects beside the weights, such as the lists of LazyConfigs. No code of
    theirs runs: names in the file are looked up among the stand-ins only.
    """
    names_of = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if names_of is None or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        return nullcontext()
    try:
        names = names_of(path)
    except (RuntimeError, ValueError):  # an older format, which torch does not search
        return nullcontext()
    stand_ins: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in names]
    context: AbstractContextManager[Any] = torch.serialization.safe_globals(stand_ins)
    return context


class _Inert(dict):
    """Stands in for an object that is not needed, whatever it would be made of."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """As a list's; forgets it."""

    def extend(self, items: Any) -> None:
        """As a list's; forgets them."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not plain data")
        return super().find_class(module, name)


def _check_plain(path: str) -> None:
    """Raise unless a pickle holds plain containers and numpy arrays only."""
    data = io.BytesIO(Path(path).read_bytes())
    _PlainUnpickler(data, encoding="latin1").load()
