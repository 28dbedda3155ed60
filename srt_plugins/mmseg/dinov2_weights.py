"""Checkpoints of DINOv2 under the names of timm's ViT, and back."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError

SIZES = {
    "vits14": dict(embed_dim=384, depth=12, num_heads=6),
    "vitb14": dict(embed_dim=768, depth=12, num_heads=12),
    "vitl14": dict(embed_dim=1024, depth=24, num_heads=16),
    "vitg14": dict(embed_dim=1536, depth=40, num_heads=24, swiglu=True),
}
"""Width, depth, heads and feed-forward of the released models, by their names."""

# DINOv2's names and timm's. The parameters are the same.
_NAMES = {
    "register_tokens": "reg_token",
    ".mlp.w12.": ".mlp.fc1.",
    ".mlp.w3.": ".mlp.fc2.",
}
MASK_TOKEN = "mask_token"
"""Used in pretraining only; timm's ViT has none."""


def from_dinov2(state: dict[str, Tensor], prefix: str = "") -> None:
    """Rename a state dict's keys from DINOv2's names to timm's, in place.

    Keys that have timm's names already stay; ``mask_token`` goes.

    Args:
        state: state dict, of the backbone or of a model that contains it.
        prefix: what the backbone's keys start with.
    """
    for key in [k for k in state if k.startswith(prefix)]:
        own = key[len(prefix) :]
        renamed = own
        for theirs, ours in _NAMES.items():
            renamed = renamed.replace(theirs, ours)
        if own == MASK_TOKEN:
            del state[key]
        elif renamed != own:
            state[prefix + renamed] = state.pop(key)


def to_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's state dict under DINOv2's names, with the (unused) ``mask_token``."""
    swiglu = state["blocks.0.mlp.fc1.weight"].shape[0] != state["blocks.0.mlp.fc2.weight"].shape[1]
    names = {ours: theirs for theirs, ours in _NAMES.items() if swiglu or "mlp" not in ours}
    official = {MASK_TOKEN: torch.zeros_like(state["cls_token"][0])}
    for key, value in state.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        official[key] = value
    return official


def read_backbone(source: str | Path) -> dict[str, Tensor]:
    """The tensors of a backbone checkpoint, from a file or a URL, under timm's names.

    A URL is downloaded once, into ``torch.hub.get_dir()/checkpoints``. The keys may start with
    ``backbone.``, as in the checkpoint of a whole model.

    Raises:
        ConfigError: no such file.
        CheckpointError: the file holds no plain tensors, or more than them.
    """
    path = _download(str(source)) if urlparse(str(source)).scheme in ("http", "https") else source
    state = _read(Path(path))
    within = {k[len("backbone.") :]: v for k, v in state.items() if k.startswith("backbone.")}
    state = within or state
    from_dinov2(state)
    return state


def differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Where a checkpoint's keys and shapes differ from a module's, for a message; empty = nowhere.

    A batch norm's ``num_batches_tracked`` may be missing, as in old checkpoints.
    """
    missing = [key for key in own if key not in state and "num_batches_tracked" not in key]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key!r} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{what}: {_listed(keys)}"
        for what, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if shapes:
        problems.append("of another shape: " + ", ".join(shapes[:3]))
    return "; ".join(problems)


def check_fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str | Path) -> None:
    """Compare a backbone's checkpoint with the backbone before anything is loaded.

    Args:
        state: the checkpoint's tensors under timm's names.
        own: the backbone's state dict.
        source: where the checkpoint came from.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys; says which model the checkpoint is
            of where that is known.
    """
    problems = differences(state, own)
    if problems:
        held = describe(state)
        raise CheckpointError(
            f"Expected {source} to hold the weights of this {describe(own) or 'backbone'}, got "
            f"{held or 'keys of another kind'}; {problems}. "
            + (
                f"Build DINOv2({held}), or take its checkpoint."
                if held
                else "Take a backbone file."
            )
        )


class WholeHead:
    """Mixin of heads that load whole or not at all.

    MMEngine loads what fits and logs the rest: a head of another model, or of other layers, would
    be tested with random weights.
    """

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kw: Any) -> None:
        given = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
        problems = given and differences(given, self.state_dict())  # type: ignore[attr-defined]
        if problems:
            raise CheckpointError(
                f"Expected the checkpoint's {prefix!r} keys to be those of this "
                f"{type(self).__name__}, got {problems}. Take the head of this backbone, data set "
                "and number of layers, or remove its keys from the file to train a head anew."
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kw)  # type: ignore[misc]


def describe(state: Mapping[str, Tensor]) -> str | None:
    """The arguments of ``DINOv2`` that a state dict (timm's names) belongs to, None if none."""
    try:
        width = state["cls_token"].shape[-1]
        rows = state["pos_embed"].shape[1] - 1
        patch = state["patch_embed.proj.weight"].shape[-1]
        first = state["blocks.0.mlp.fc2.weight"].shape[1]
        swiglu = state["blocks.0.mlp.fc1.weight"].shape[0] != first
    except KeyError:
        return None
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    found = next(
        (
            repr(name)
            for name, size in SIZES.items()
            if (size["embed_dim"], size["depth"], bool(size.get("swiglu")))
            == (width, depth, swiglu)
        ),
        f"embed_dim={width}, depth={depth}, swiglu={swiglu}",
    )
    found += f", registers={registers}" if registers else ""
    return found + f", img_size={math.isqrt(rows) * patch}"


def _listed(keys: list[str]) -> str:
    more = f", … {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(repr(k) for k in keys[:3]) + more


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without running code that it may hold."""
    if not path.is_file():
        raise ConfigError(f"Expected checkpoint to be a file or a URL, got {str(path)!r}.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise CheckpointError(
            f"Expected {path} to be a checkpoint of plain tensors: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}. Save "
            "{'state_dict': model.state_dict()} with torch.save."
        ) from error


def _download(url: str) -> Path:
    """The file behind a URL, from torch.hub's folder if it is there already."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(urlparse(url).path).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            raise CheckpointError(
                f"Expected checkpoint to be a file or a URL that can be read, got {url}: {error}. "
                f"Download it yourself and name the file, or put it at {path}."
            ) from error
    return path
