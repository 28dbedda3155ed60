"""How a backbone was called: the images among its arguments, and everything else as it was."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Callable

from torch import Tensor, nn

from .adapters.outputs import Asked
from .errors import ConfigError

Plain = Callable[..., Any]


@dataclass(frozen=True)
class ImageCall:
    """A call of a backbone as a function of the images alone.

    Attributes:
        images: ``(B, C, H, W)``.
        run: the plain backbone on other images, with the other arguments as they were.
        asked: the method and its arguments, by name.
    """

    images: Tensor
    run: Callable[[Tensor], Any]
    asked: Asked

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the images."""
        # While a model is traced, sizes are tensors, of which no two are equal as keys.
        return (int(self.images.shape[-2]), int(self.images.shape[-1]))


def image_call(module: nn.Module, plain: Plain, args: tuple, kwargs: dict) -> ImageCall:
    """The call that ``plain(*args, **kwargs)`` is.

    Raises:
        ConfigError: the first argument is not images, or there are other tensors.
    """
    every = {**dict(enumerate(args)), **kwargs}
    # The first argument; by keyword the images may stand behind others.
    named = next((k for k, v in kwargs.items() if _is_images(v)), next(iter(kwargs), None))
    key: Any = 0 if args else named
    first = every.get(key)
    if not isinstance(first, Tensor) or first.ndim != 4:
        shape = tuple(getattr(first, "shape", ()))
        given = "none" if first is None else f"{type(first).__name__} {shape}"
        raise ConfigError(
            f"Expected the first argument of {type(module).__name__} to be images (B, C, H, W), "
            f"got {given}; pass them first."
        )
    if any(isinstance(v, Tensor) and v.ndim for k, v in every.items() if k != key):
        raise ConfigError(
            f"Expected the images to be the only tensor that {type(module).__name__} takes: others "
            "would not be translated with them. Wrap a part of the model that takes images only."
        )

    def run(images: Tensor) -> Any:
        if args:
            return plain(images, *args[1:], **kwargs)
        return plain(**{**kwargs, key: images})

    return ImageCall(first, run, _asked(plain, args, kwargs))


def asked_value(module: nn.Module, kwargs: dict, keyword: str) -> Any:
    """The value of a keyword of a call, by default that of the module's configuration."""
    given = kwargs.get(keyword)
    return getattr(getattr(module, "config", None), keyword, None) if given is None else given


def _asked(plain: Plain, args: tuple, kwargs: dict) -> Asked:
    """Which method is called, with every argument by its name."""
    name = getattr(getattr(plain, "func", plain), "__name__", "forward")
    try:
        bound = inspect.signature(plain).bind(*args, **kwargs)
    except TypeError:  # a decorator takes other arguments than the method that it shows
        return Asked(name, kwargs)
    bound.apply_defaults()
    return Asked(name, dict(bound.arguments))


def _is_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4
