"""Where the backbone sits inside a model."""

from __future__ import annotations

from torch import nn

from srt_plugins.errors import AdapterError, ConfigError

# Containers that hold a whole model: DDP, DataParallel, averaged (EMA) and TTA models.
_CONTAINERS = ("module", "_orig_mod", "model")
_PLACES = ("backbone",)


def find_backbone(model: nn.Module) -> nn.Module:
    """The backbone inside a model.

    Looks at ``.backbone``, through containers that hold the whole model (DDP, averaged, TTA and
    compiled ones).

    Raises:
        AdapterError: none found; lists the model's children with their types.
    """
    inner = model
    while True:
        for place in _PLACES:
            found = getattr(inner, place, None)
            if isinstance(found, nn.Module):
                return found
        children = inner._modules
        contained = next((children[c] for c in _CONTAINERS if children.get(c) is not None), None)
        if contained is None:
            break
        inner = contained
    seen = ", ".join(f".{n} ({type(m).__name__})" for n, m in inner.named_children())
    raise AdapterError(
        f"Expected {type(inner).__name__} to hold its backbone at .backbone; it has "
        f"{seen or 'no children'}. Wrap the backbone yourself: SRTWrapper(model.<child>, ...)."
    )


def find_target(backbone: nn.Module, target: str | None) -> nn.Module:
    """The part of a backbone at a module path; the backbone itself for None.

    Raises:
        ConfigError: the backbone has no module there; lists its children with their types.
    """
    if target is None:
        return backbone
    try:
        return backbone.get_submodule(target)
    except (AttributeError, TypeError):
        pass
    children = ", ".join(f"{n!r} ({type(m).__name__})" for n, m in backbone.named_children())
    raise ConfigError(
        f"Expected target to be a part of {type(backbone).__name__}, got {target!r}; it has "
        f"{children or 'no parts'}. Leave target out to ensemble the whole backbone."
    )
