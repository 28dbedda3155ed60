"""Where the backbone sits inside a model."""

from __future__ import annotations

from typing import Callable

from torch import nn

from srt_plugins.errors import AdapterError

# Containers that hold a whole model: DDP, DataParallel, averaged (EMA) and TTA models, and the
# models of transformers without their heads.
_CONTAINERS = ("module", "_orig_mod", "model")
_PLACES = ("backbone", "pixel_level_module.encoder", "vision_encoder", "vision_model")
# Classes of transformers that take a mask beside the images, which the backbone inside does not.
_ENCODERS = ("ConvEncoder", "ConvModel")
# Known backbones that an error lists.
_LISTED = 8


def find_backbone(model: nn.Module, known: Callable[[nn.Module], bool]) -> nn.Module:
    """The backbone inside a model.

    Looks at ``.backbone`` and the other places where libraries keep it, also inside containers
    that hold the whole model (DDP, averaged, TTA and compiled ones), and inside encoders of
    transformers that take a mask too; then at the base model that
    transformers' models name; then for the only module inside that is a known backbone.

    Args:
        model: a whole model.
        known: tells whether a module is a backbone that an adapter describes.

    Raises:
        AdapterError: none found, or several; lists the candidates with their types.
    """
    inner = model
    while True:
        for place in _PLACES:
            found = _at(inner, place)
            if found is not None and _reads_text(found):
                raise AdapterError(_message(inner, {}))
            if found is not None:
                return _below(found, known)
        base = _at(inner, str(getattr(inner, "base_model_prefix", "") or ""))
        if base is not None and known(base):
            return base
        children = inner._modules
        contained = next((children[c] for c in _CONTAINERS if children.get(c) is not None), None)
        if contained is None:
            break
        inner = contained
        if known(inner):
            return inner
    candidates = _outermost(inner, known)
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    raise AdapterError(_message(inner, candidates))


def _below(module: nn.Module, known: Callable[[nn.Module], bool]) -> nn.Module:
    """The module, or the backbone inside one that takes more than images."""
    if known(module) or not type(module).__name__.endswith(_ENCODERS):
        return module
    inside = list(_outermost(module, known).values())
    return inside[0] if len(inside) == 1 else module


def _reads_text(module: nn.Module) -> bool:
    """Whether a model of transformers takes token indices."""
    if getattr(module, "main_input_name", "") != "input_ids":
        return False
    try:
        return isinstance(module.get_input_embeddings(), nn.Embedding)  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return False


def _at(model: nn.Module, path: str) -> nn.Module | None:
    found: object = model
    for name in path.split("."):
        found = getattr(found, name, None) if name else None
    return found if isinstance(found, nn.Module) else None


def _outermost(model: nn.Module, known: Callable[[nn.Module], bool]) -> dict[str, nn.Module]:
    """Known backbones by path, without those inside others."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if path and not inside and known(module):
            found[path] = module
    return found


def _message(model: nn.Module, candidates: dict[str, nn.Module]) -> str:
    name = type(model).__name__
    if candidates:
        shown = _listed(list(candidates.items())[:_LISTED])
        more = f" and {len(candidates) - _LISTED} more" if len(candidates) > _LISTED else ""
        return (
            f"Expected {name} to hold one backbone, got {len(candidates)}: {shown}{more}. "
            f"Say which with target={next(iter(candidates))!r}."
        )
    if _reads_text(model):
        return f"Expected a model that takes images, got {name}, which takes text."
    children = list(model.named_children())
    return (
        f"Expected {name} to hold its backbone at .backbone, or to hold one of a known family "
        f"anywhere; its children are {_listed(children) or 'none'}. Wrap the backbone yourself: "
        "SRTWrapper(model.<child>, ...)."
    )


def _listed(modules: list[tuple[str, nn.Module]]) -> str:
    return ", ".join(f".{name} ({type(module).__name__})" for name, module in modules)
