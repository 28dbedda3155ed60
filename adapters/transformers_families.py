"""What families of transformers' models look like, from their settings and modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul
from typing import Any, Callable, Optional

from srt_plugins.adapters import timm
from srt_plugins.adapters.base import Adapter
from srt_plugins.adapters.structure import side
from srt_plugins.adapters.transformers_outputs import Named
from torch import nn

Describe = Callable[[Any], Optional[Adapter]]

# Where the list of blocks or stages is below a model, beside its base model.
_ROOTS = ("", "encoder.", "model.", "model.encoder.", "vision_model.encoder.")
_LISTS = ("layer", "layers", "stages", "block")


def _adapter(module: nn.Module, **facts: Any) -> Adapter:
    classes = type(module).__mro__
    name = next(c.__name__ for c in classes if c.__module__.startswith("transformers."))
    facts = {"parts": (), "named_by": "return_dict", "attentions": True, **facts}
    return Adapter(family=f"transformers {name}", **facts)


def _outputs(strides: Sequence[int], roles: dict[str, str] | None = None, **more: Any) -> Named:
    known = {"pooler_output": "vector", **(roles or {})}
    return Named(tuple(sorted(set(strides))), kept=("attentions",), roles=known, **more)


# --- one stride ----------------------------------------------------------------------------------


def vit(ahead: int = 1, counted: str = "", layout: str = "NLC", **roles: str) -> Describe:
    """Blocks on patches of one size.

    Args:
        ahead: prefix tokens; further ones are counted by the setting ``counted``.
        layout: of blocks' tokens.
        **roles: layouts of outputs by name.
    """

    def describe_vit(module: Any) -> Adapter:
        config = module.config
        patch, blocks = side(config.patch_size), tuple(_blocks(module))
        prefix = ahead + (int(getattr(config, counted)) if counted else 0)
        maps = _is_backbone(module) and getattr(config, "reshape_hidden_states", False)
        return _adapter(
            module,
            patch=patch,
            # Heads know from the size of the image how many tokens there must be.
            declares=layout == "NHWC" or (layout == "NLC" and not maps),
            by_size=_outputs((patch,), roles, prefix=prefix),
            blocks=blocks,
            block_strides=(patch,) * len(blocks),
            taps=tuple(range(len(blocks))),
            prefix_tokens=prefix,
            block_layout=layout,
        )

    return describe_vit


def dpt(module: Any) -> Adapter | None:
    """A hybrid returns two maps of its convolutional stem beside the tokens."""
    adapter = vit()(module)
    if adapter is None or adapter.patch is None or not module.config.is_hybrid:
        return adapter
    exact = {"intermediate_activations": (4, 8)}
    return replace(adapter, by_size=_outputs((4, 8, adapter.patch), prefix=1, exact=exact))


def windowed(module: Any) -> Adapter:
    """Maps, and before them tokens in windows."""
    patch = side(module.config.patch_size)
    return _adapter(module, patch=patch, by_size=_outputs((patch,), {"hidden_states": "unordered"}))


# --- several strides -----------------------------------------------------------------------------


def pyramid(
    strides: Callable[[Any], list[int]],
    hidden: str = "all",
    layout: str = "NLC",
    completes: bool = True,
    prefix: int = 0,
    declares: bool = False,
) -> Describe:
    """Stages of blocks.

    Args:
        strides: stride of the stem and of every stage, of a module.
        hidden: what hidden states there are: of the stem and ``"all"`` stages, of the ``"stages"``
            alone, of what goes into each stage and out of the last (``"inputs"``), or others ("").
        layout: of blocks' tokens.
        completes: whether partial patches are completed, not left out.
        prefix: tokens in front of the last map's.
        declares: whether heads rely on the strides.
    """

    def describe_pyramid(module: Any) -> Adapter:
        stem, *stages = strides(module)
        maps = _feature_strides(module, stem, stages)
        states = {"all": [stem, *stages], "stages": stages, "inputs": [*stages, stages[-1]]}
        exact = {"feature_maps": maps, "last_hidden_state": (stages[-1],)}
        if hidden:
            exact["hidden_states"] = exact["reshaped_hidden_states"] = tuple(states[hidden])
        blocks = _blocks(module)
        tokens = layout == "NLC" and not maps and hidden != "stages"
        return _adapter(
            module,
            patch=max(maps or stages),
            declares=declares or tokens,
            by_size=_outputs([stem, *stages], exact=exact, completes=completes, prefix=prefix),
            blocks=tuple(blocks),
            block_strides=tuple(stages[stage] for stage in blocks.values()),
            taps=tuple(range(len(blocks))),
            block_layout=layout,
        )

    return describe_pyramid


def _feature_strides(module: Any, stem: int, stages: list[int]) -> tuple[int, ...]:
    """Of the feature maps of a backbone; none of a base model."""
    at = {"stem": stem, **{f"stage{i + 1}": s for i, s in enumerate(stages)}}
    return tuple(at[name] for name in module.out_features) if _is_backbone(module) else ()


def doubling(module: Any) -> list[int]:
    """Stages half as fine as the one before, from the patch size on."""
    patch = side(getattr(module.config, "patch_size", 4))
    return [patch, *(patch * 2**i for i in range(len(module.config.depths)))]


def from_image(module: Any) -> list[int]:
    """Stages alone; what goes into the first is the image."""
    return [1, *doubling(module)[1:]]


def strided(module: Any) -> list[int]:
    """Stages as the settings say."""
    strides = list(accumulate(module.config.strides, mul))
    return [strides[0], *strides]


def halving(module: Any) -> list[int]:
    """Stages of a ResNet, whose stem has stride 4."""
    first = 8 if module.config.downsample_in_first_stage else 4
    return [4, *(first * 2**i for i in range(len(module.config.depths)))]


def swin(module: Any) -> Adapter | None:
    """Base models return what goes into each stage, backbones what comes out."""
    return pyramid(doubling, "all" if _is_backbone(module) else "inputs")(module)


def hiera(module: Any) -> Adapter | None:
    """Tokens are in the order in which they are pooled later."""
    config = module.config
    if getattr(getattr(module, "embeddings", None), "is_mae", False):
        return refused("it masks patches at random")(module)
    first, step = side(config.patch_stride), side(config.query_stride)
    pooled = [min(i, int(config.num_query_pool)) for i in range(len(config.depths))]
    stages = [first * step**i for i in pooled]
    maps = _feature_strides(module, first, stages)
    # In raster order once every unit is pooled to one token.
    pools = pooled[-1] == config.num_query_pool
    last = pools and side(config.masked_unit_size) == step ** pooled[-1]
    return _adapter(
        module,
        patch=max(maps or stages),
        by_size=_outputs(
            stages,
            {
                "hidden_states": "unordered",
                "last_hidden_state": "NLC" if last else "unordered",
                "reshaped_hidden_states": "NHWC",
            },
            exact={
                "feature_maps": maps,
                "last_hidden_state": (stages[-1],),
                "reshaped_hidden_states": (first, *stages),
            },
        ),
    )


# --- others --------------------------------------------------------------------------------------


def timm_backbone(module: Any) -> Adapter:
    """Maps of a model of timm, whose blocks they are made by."""
    info = module._backbone.feature_info
    inner = timm.describe(module._backbone) or Adapter("")
    fmt = getattr(module._backbone, "output_fmt", "NCHW")
    every = [int(entry["reduction"]) for entry in info.info]
    maps = tuple(int(s) for s in info.reduction())
    exact = {"feature_maps": maps, "hidden_states": tuple(every)}
    layouts = (str(getattr(fmt, "value", fmt)),)
    return _adapter(
        module,
        patch=max(maps),
        multiple=inner.multiple,
        by_size=_outputs(every, layouts=layouts, exact=exact, completes=None),
        blocks=tuple(f"_backbone.{path}" for path in inner.blocks),
        block_strides=inner.block_strides,
        taps=tuple(range(len(inner.blocks))),
        prefix_tokens=inner.prefix_tokens,
        block_layout=inner.block_layout,
    )


def probed(module: Any) -> Adapter:
    """Maps in the order that the first call shows."""
    return _adapter(module)


def refused(reason: str) -> Describe:
    """What cannot be ensembled."""
    return lambda module: _adapter(module, refused=reason)


# --- where things are ----------------------------------------------------------------------------


def _is_backbone(module: Any) -> bool:
    """Whether it returns the feature maps that its settings name."""
    return hasattr(module, "out_features")


def _blocks(module: Any) -> dict[str, int]:
    """Path of every block, in the order in which they run, with the index of its stage."""
    base = f"{getattr(module, 'base_model_prefix', '')}."
    places = [root + name for root in (*_ROOTS, base, f"{base}encoder.") for name in _LISTS]
    lists = (place for place in places if isinstance(_at(module, place), nn.ModuleList))
    path = next(lists, "no list of blocks")
    found: dict[str, int] = {}
    for i, stage in enumerate(module.get_submodule(path)):
        inner = next((n for n in ("blocks", "layers") if hasattr(stage, n)), "")
        held = getattr(stage, inner) if inner else stage
        single = not isinstance(held, (nn.ModuleList, nn.Sequential))
        names = (
            [""] if single else [f".{inner}.{j}" if inner else f".{j}" for j in range(len(held))]
        )
        found.update({f"{path}.{i}{name}": i for name in names})
    return found


def _at(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
