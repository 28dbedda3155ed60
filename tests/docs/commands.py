"""Commands of the pages: read as what they call would read them, and run where that is quick."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_KNOWN = ("srt", "python", "make", "pip", "torchrun", "pre-commit", ".", "source")


def is_command(text: str) -> bool:
    """Whether a block without a language is one of commands."""
    return text.split(None, 1)[0] in _KNOWN if text.strip() else False


def split(text: str) -> Iterator[list[str]]:
    """The commands of a block as words, without comments and variables."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield words


def check(words: list[str]) -> None:
    """Check a command as what it calls would read it.

    Raises:
        Exception: it would be refused, or nothing here knows the command.
    """
    name, rest = words[0], words[1:]
    checks = {
        "srt": _srt,
        "python": _python,
        "make": _make,
        "pip": _pip,
        "torchrun": _torchrun,
        "pre-commit": lambda rest: None,
        ".": lambda rest: None,
        "source": lambda rest: None,
    }
    if name not in checks:
        raise ValueError(
            f"no check knows the command {name!r} (there are {', '.join(checks)}); teach it to "
            "tests/docs/commands.py, or mark the block <!-- not run: REASON -->"
        )
    checks[name](rest)


def _srt(words: list[str]) -> None:
    from srt_plugins.cli import build_parser

    args = build_parser(words).parse_args(words)
    _check_paths(words)
    paths = [word for word in words[2:4] if (ROOT / word).exists()]
    if args.command == "compare" and len(paths) == 2:
        _run_quickly(words)


def _run_quickly(words: list[str]) -> None:
    """Run a comparison of a model that is shipped, on two small images."""
    from srt_plugins.cli import main

    importlib.import_module(words[1])  # where it is missing, that is said
    paths = [str(ROOT / word) if (ROOT / word).is_file() else word for word in words]
    small = ["--cfg-options", "test_dataloader.dataset.size=(72,104)"] if "mmseg" in words else []
    code = main([*paths, "--limit", "2", "--device", "cpu", "--out", "out", *small])
    assert code == 0, f"srt {' '.join(words)} on two images ends with {code}; the log says why"


def _python(words: list[str]) -> None:
    if words[:2] == ["-m", "srt_plugins"]:
        _srt(words[2:])
    elif words[0] == "-m":
        if importlib.util.find_spec(words[1]) is None:
            raise ModuleNotFoundError(f"python -m {words[1]}: there is no such module")
    elif words[0] == "tools/test.py":
        _mmseg_test(words[1:])
    elif words[0] == "tools/lazyconfig_train_net.py":
        _lazyconfig_train_net(words[1:])
    else:
        _check_paths(words[:1])


def _mmseg_test(words: list[str]) -> None:
    """MMSegmentation's own script reads its arguments; its options go into the config, or onto one
    of ours where the command says CONFIG."""
    import mmseg
    from mmengine.config import Config
    from mmseg.registry import MODELS

    script = Path(mmseg.__file__).parent / ".mim" / "tools" / "test.py"
    spec = importlib.util.spec_from_file_location("mmseg_test_script", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before, sys.argv = sys.argv, ["tools/test.py", *words]
    try:
        args = module.parse_args()
    except SystemExit as error:
        raise ValueError(f"tools/test.py refuses {' '.join(words)}") from error
    finally:
        sys.argv = before
    _check_paths(words[:1])
    ours = Path(__file__).parent / "bases" / "tiny.py"
    cfg = Config.fromfile(ours if args.config == "CONFIG" else ROOT / args.config)
    if args.cfg_options:
        from mmengine.registry import HOOKS, init_default_scope

        from srt_plugins.wrapper import wrapped

        cfg.merge_from_dict(args.cfg_options)
        init_default_scope("mmseg")
        wraps = any(key.startswith("model.backbone.") for key in args.cfg_options)
        if wraps and args.config == "CONFIG":
            assert wrapped(MODELS.build(cfg.model)), "the options wrap nothing"
        for hook in cfg.get("default_hooks", {}).values():
            HOOKS.build(hook)


def _lazyconfig_train_net(words: list[str]) -> None:
    from detectron2.config import LazyConfig
    from detectron2.engine import default_argument_parser

    args = default_argument_parser().parse_args(words)
    _check_paths([args.config_file])
    cfg = LazyConfig.load(str(ROOT / args.config_file))
    LazyConfig.apply_overrides(cfg, args.opts)


def _make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE))
    variables = set(re.findall(r"\b([A-Z][A-Z_0-9]*)\b", text))
    for word in words:
        name, given, _ = word.partition("=")
        if given and name not in variables:
            raise ValueError(f"the Makefile knows no variable {name}")
        if not given and word not in targets:
            raise ValueError(f"the Makefile has no target {word!r} ({', '.join(sorted(targets))})")


def _pip(words: list[str]) -> None:
    from packaging.requirements import Requirement

    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    for word in words[1:]:
        if word.startswith("-"):
            continue
        requirement = Requirement(word if word[0].isalnum() else f"srt-plugins{word.lstrip('.')}")
        unknown = requirement.extras - set(extras)
        if requirement.name == "srt-plugins" and unknown:
            raise ValueError(f"pyproject.toml has no extra {', '.join(unknown)}")


def _torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    args = get_args_parser().parse_args(words)
    script = [args.training_script, *args.training_script_args]
    if args.training_script.startswith("tools/"):
        _python(script)


def _check_paths(words: list[str]) -> None:
    """Files that look like ours exist."""
    for word in words:
        folder = word.partition("/")[0]
        ours = "/" in word and folder in ("examples", "mmseg_configs", "d2_configs", "benchmarks")
        if ours and not (ROOT / word).exists():
            raise FileNotFoundError(f"there is no {word}")
