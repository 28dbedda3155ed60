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
    kind = words[0]
    part = {"target": target} if target else {}
    given = {**part, **keywords}
    called = "".join(f", {name}={value!r}" for name, value in given.items())
    found = [
        "# Python",
        "from srt_plugins import attach",
        "",
        f"attach(model{called})",
    ]
    if kind == "mmseg":
        found += [
            "",
            "# MMSegmentation, in the config",
            'custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)',
            f"custom_hooks = [dict(type='SRTHook'{called})]",
        ]
    if kind == "detectron2":
        pairs = [w for k, v in given.items() for w in (f"MODEL.SRT.{k.upper()}", str(v))]
        found += [
            "",
            "# Detectron2, keys of the config (srt_plugins.detectron2.add_srt_config)",
            shlex.join(pairs) or "# the defaults",
        ]
    options = [w for k, v in keywords.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    # Without any setting `srt show` takes more views than the default.
    options = options or ["--views", "phases"]
    found += ["", "# pictures in files", shlex.join(["srt", "show", "IMAGE", *options])]
    found[-1] += f" --model {shlex.join(words)}" + (f" --target {target}" if target else "")
    return "\n".join(found)
