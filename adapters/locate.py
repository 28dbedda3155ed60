"""Where the backbone sits inside a model."""

from __future__ import annotations

from torch import nn

from srt_plugins.errors import AdapterError

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
