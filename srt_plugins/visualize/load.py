"""Models to be looked at, by what the command line and the web page call them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..evaluation.environment import chosen_device
from .subject import Subject

FRAMEWORKS = ("mmseg", "detectron2")
HOW = "timm/NAME, mmseg CONFIG CHECKPOINT, detectron2 CONFIG CHECKPOINT, or a transformers folder"


def load_subject(
    words: Sequence[str],
    *,
    device: Any = None,
    checkpoint: str | None = None,
    trust: bool = False,
    options: Sequence[str] = (),
    target: str | None = None,
    dtype: str | None = None,
) -> Subject:
    """The model that some words name.

    Args:
        words: ``["timm/NAME"]``, ``["mmseg", CONFIG, CHECKPOINT]``,
            ``["detectron2", CONFIG, CHECKPOINT]``, or ``[FOLDER]`` as ``save_pretrained`` wrote it.
        device: torch device; None = a GPU if there is one.
        checkpoint: weights of a timm model; None = the released ones.
        trust: load a checkpoint that holds more than plain tensors; this runs code from it.
        options: overrides of the config, in the framework's own syntax.
        target: part of the backbone that SRT is for (Detectron2).
        dtype: of a transformers model; None = as the weights are saved.

    Raises:
        SRTError: words that name no model, or a model that cannot be loaded.
    """
    words = list(words)
    kind = words[0] if words else ""
    on = chosen_device(device)
    if kind in FRAMEWORKS:
        if len(words) != 3:
            raise ConfigError(
                f"Expected --model {kind} CONFIG CHECKPOINT, got {len(words) - 1} words after "
                f"{kind}."
            )
        return _with_config(kind, words[1], words[2], on, trust, options, target)
    if len(words) != 1:
        raise ConfigError(f"Expected --model to be {HOW}, got {' '.join(words) or 'nothing'}.")
    if kind.startswith("timm/"):
        from .timm_subject import timm_subject

        return timm_subject(kind.removeprefix("timm/"), on, checkpoint, trust)
    if not Path(kind).is_dir() and kind.count("/") != 1:
        raise ConfigError(
            f"Expected --model to be {HOW}, got {kind!r}, which is no folder; did you mean "
            f"{_meant(kind)}?"
        )
    from .transformers_subject import transformers_subject

    return transformers_subject(kind, on, dtype=dtype, trust=trust)


def _meant(word: str) -> str:
    """What a word that names nothing may stand for."""
    if find_spec("timm") is not None:
        import timm

        if timm.is_model(word):
            return repr(f"timm/{word}")
    known = ("timm/NAME", *FRAMEWORKS)
    close = difflib.get_close_matches(word.partition("/")[0], known, 1, 0.4)
    return repr(close[0] if close else known[0])


def quiet(words: Sequence[str]) -> AbstractContextManager[None]:
    """While active, the framework of the model that some words name tells nothing but errors."""
    kind = words[0] if words else ""
    if kind == "mmseg":
        from ..evaluation import mmseg_command

        return mmseg_command.quiet()
    if kind == "detectron2":
        from ..evaluation import detectron2_command

        return detectron2_command.quiet()
    if kind.startswith("timm/"):
        return nullcontext()
    from ..evaluation import transformers_load

    return transformers_load.quiet()


def _with_config(
    kind: str,
    config: str,
    checkpoint: str,
    device: Any,
    trust: bool,
    options: Sequence[str],
    target: str | None,
) -> Subject:
    if kind == "mmseg":
        from ..evaluation.keywords import parse_overrides
        from .mmseg_subject import mmseg_subject

        bad = [word for word in options if not word.partition("=")[0] or "=" not in word]
        if bad:
            raise ConfigError(f"Expected --options to be KEY=VALUE, got {bad[0]!r}.")
        given = parse_overrides(list(options))
        return mmseg_subject(config, checkpoint, device, trust=trust, options=given)
    from .detectron2_subject import detectron2_subject

    return detectron2_subject(
        config, checkpoint, device, trust=trust, options=list(options), target=target
    )
