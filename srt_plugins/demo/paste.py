"""The chosen settings as lines to paste."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any


def lines(words: Sequence[str], keywords: dict[str, Any], target: str | None = None) -> str:
    """How to have the chosen settings in one's own code, config or command line.

    Args:
        words: of the model.
        keywords: the settings that differ from the defaults.
        target: part of the backbone that SRT is for.
    """
    given = {**({"target": target} if target else {}), **keywords}
    called = "".join(f", {name}={value!r}" for name, value in given.items())
    found = {"Python": ["from srt_plugins import attach", "", f"attach(model{called})"]}
    if words[0] == "mmseg":
        found["MMSegmentation, in the config"] = [
            'custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)',
            f"custom_hooks = [dict(type='SRTHook'{called})]",
        ]
    if words[0] == "detectron2" and words[1].endswith(".py"):
        found["Detectron2, at the end of the LazyConfig"] = [
            "from srt_plugins.detectron2 import with_srt",
            "",
            f"with_srt(model.backbone{called})",
        ]
    elif words[0] == "detectron2":
        found["Detectron2, after the config is read"] = [
            "from srt_plugins.detectron2 import add_srt_config",
            "",
            "add_srt_config(cfg)",
            "cfg.MODEL.SRT.BACKBONE = cfg.MODEL.BACKBONE.NAME",
            'cfg.MODEL.BACKBONE.NAME = "build_srt_backbone"',
            *(f"cfg.MODEL.SRT.{name.upper()} = {value!r}" for name, value in given.items()),
        ]
    found["pictures in files"] = [_show(words, keywords, target)]
    return "\n\n".join("\n".join([f"# {where}", *text]) for where, text in found.items())


def _show(words: Sequence[str], keywords: dict[str, Any], target: str | None) -> str:
    options = [w for k, v in keywords.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    part = ["--target", target] if target else []
    return shlex.join(["srt", "show", "IMAGE", *options, "--model", *words, *part])
