"""The backbone type for config files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Callable

from mmengine.registry import Registry
from mmseg.registry import MODELS
from torch import nn

from ..errors import ConfigError, nearest
from ..settings import Settings
from ..wrapper import SRTWrapper as wrap
from .uncertainty import follow_into_segmentor

_SRT_KEYWORDS = frozenset(f.name for f in fields(Settings))


@MODELS.register_module()
def SRTWrapper(
    backbone: Mapping[str, Any] | nn.Module | None = None,
    *,
    wraps: str | Callable[..., nn.Module] | None = None,
    srt: Mapping[str, Any] | None = None,
    pretrained: str | bool | None = None,
    init_cfg: Any = None,
    **keywords: Any,
) -> nn.Module:
    """Build a backbone and ensemble it over translated views in eval mode.

    Nested form, SRT keywords beside the backbone's config::

        backbone=dict(type="SRTWrapper", backbone=dict(type="VisionTransformer", ...), level=3)

    Flat form, which changes an inherited config without ``_delete_`` and fits on a command line::

        backbone=dict(type="SRTWrapper", wraps="VisionTransformer", srt=dict(level=3), ...)

    Args:
        backbone: config of the backbone, or the built module (nested form).
        wraps: registered type of the backbone (flat form); the other keywords are its own.
        srt: SRT keywords of the flat form; see :class:`srt_plugins.Settings`.
        pretrained: handed to the backbone; ``EncoderDecoder`` sets it on the outer config.
        init_cfg: handed to the backbone.
        **keywords: SRT keywords in the nested form, the backbone's own in the flat one.

    Returns:
        The backbone itself, of a subclass of its class: state-dict keys and attributes are its own.

    Raises:
        ConfigError: both or neither of ``backbone`` and ``wraps``, an unknown backbone type, an
            unknown or misplaced keyword; before anything is built.
    """
    if (backbone is None) == (wraps is None):
        raise ConfigError(
            "Expected either backbone=dict(type=...) (nested form) or wraps='<type>' (flat form), "
            f"got {'neither' if backbone is None else 'both'}."
        )
    inner: Any = backbone
    settings: Mapping[str, Any] = keywords
    if wraps is not None:
        inner, settings = {"type": wraps, **keywords}, _mapping("srt", srt or {})
    elif srt is not None:
        raise ConfigError(
            "Expected the SRT keywords directly beside backbone=, got srt="
            f"{dict(_mapping('srt', srt))}; srt=dict(...) belongs to the flat form with wraps=."
        )
    Settings.of(**settings)
    if isinstance(inner, nn.Module):
        if pretrained is not None or init_cfg is not None:
            raise ConfigError(
                "Expected neither pretrained nor init_cfg beside an already built backbone, got "
                f"pretrained={pretrained!r}, init_cfg={init_cfg!r}; load its weights yourself."
            )
        return _followed(wrap(inner, **settings))
    config = dict(_mapping("backbone", inner))
    for name, value in (("pretrained", pretrained), ("init_cfg", init_cfg)):
        if value is None:
            continue
        if config.get(name) is not None:
            raise ConfigError(
                f"Expected {name} either on SRTWrapper or on its backbone, got both: {value!r} and "
                f"{config[name]!r}."
            )
        config[name] = value
    _check_config(config, flat=wraps is not None)
    built = wrap(MODELS.build(config), **settings)
    # A checkpoint that matches nothing must not leave random weights behind, unless the backbone
    # brought weights of its own (TIMMBackbone(pretrained=True)).
    built._srt.needs_weights = not getattr(built, "is_init", False)
    return _followed(built)


def _followed(backbone: Any) -> Any:
    """The backbone; the samples of the segmentor that it becomes a part of get its dispersion."""
    if backbone._srt.settings.dispersion:
        follow_into_segmentor(backbone)
    return backbone


def _check_config(config: dict[str, Any], flat: bool) -> None:
    """The backbone's type and the names of its keywords."""
    with MODELS.switch_scope_and_registry(config.get("_scope_")) as registry:
        cls = _resolve(config.get("type"), registry, "wraps" if flat else "backbone.type")
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in config:
        if name in parameters or name in ("type", "_scope_"):
            continue
        place = f"srt=dict({name}=...)" if flat else "the outer dict, beside backbone="
        if name in _SRT_KEYWORDS:
            raise ConfigError(
                f"Expected the SRT keyword {name!r} in {place}, got it among the keywords of "
                f"{cls.__name__}, which has none of that name."
            )
        if not open_ended:
            raise ConfigError(
                f"Unknown keyword {name!r} of {cls.__name__}; did you mean "
                f"{nearest(name, [*parameters, *sorted(_SRT_KEYWORDS)], 3)}? SRT keywords go into "
                f"{'srt=dict(...)' if flat else 'the outer dict, beside backbone='}."
            )


def _resolve(name: Any, registry: Registry, argument: str) -> Callable[..., nn.Module]:
    """The class or function of a type, as the registry finds it."""
    found = name
    if isinstance(name, str):
        try:
            found = registry.get(name)
        except RuntimeError:  # a dotted name whose module fails to import
            found = None
    if callable(found):
        return found
    names = [k for k, v in registry.module_dict.items() if ".backbones." in v.__module__]
    raise ConfigError(
        f"Expected {argument} to be a registered backbone, got {name!r}; near it are "
        f"{nearest(str(name), names or registry.module_dict)}. If it is your own, import its "
        "module with custom_imports."
    )


def _mapping(argument: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise ConfigError(f"Expected {argument} to be a dict, got {type(value).__name__}: {value!r}.")
