"""What is done with each block of a page, by its language."""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import re
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

import yaml

from tests.docs import commands, configs
from tests.docs.blocks import Block, blocks

SETUPS = Path(__file__).parent / "setups"
_CONFIG = re.compile(r"^(_base_|custom_imports|model|custom_hooks) = (dict\(|\[)", re.MULTILINE)
_OPTIONAL = ("detectron2", "matplotlib", "mmcv", "mmengine", "mmseg", "timm", "transformers")
_TEXT = ("text", "console")


class Page:
    """The names that a page's blocks share, and what the last one printed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Setups find each other and the bases of configs by the two underscored names.
        self.names: dict[str, Any] = {
            "__name__": "__main__",
            "_setups": SETUPS,
            "_bases": configs.FOLDER,
        }
        self.printed = ""

    def run(self, block: Block) -> None:
        """Run a block; what it raises says what is wrong with it."""
        if "output" in block.marks:
            self.compare(block.text)
        elif "config" in block.marks:
            configs.run(block.text, block.marks["config"])
        else:
            self.runner(block)(block)

    def runner(self, block: Block) -> Callable[[Block], None]:
        """What runs blocks of the language."""
        known = {
            "python": self.python,
            "setup": self.setup,
            "bash": self.bash,
            "yaml": lambda block: yaml.safe_load(block.text),
            "json": lambda block: json.loads(block.text),
            **dict.fromkeys(_TEXT, lambda block: None),
        }
        language = block.language or ("bash" if commands.is_command(block.text) else "text")
        if language not in known:
            raise ValueError(
                f"no check knows the language {language!r} (there are {', '.join(known)}); teach "
                "it to tests/docs/run.py, or mark the block <!-- not run: REASON -->"
            )
        return known[language]

    def python(self, block: Block) -> None:
        """Run a block in the page's names; tracebacks show the page's lines."""
        if _CONFIG.search(block.text):
            raise ValueError(
                "a config of MMEngine is not run as Python; mark it <!-- config --> if it has a "
                "_base_ of its own, else <!-- config: NAME --> with a file of tests/docs/bases"
            )
        code = compile("\n" * block.line + block.text, str(self.path), "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, self.names)
        self.printed = out.getvalue()

    def setup(self, block: Block) -> None:
        """Run a setup in the page's names."""
        if not (SETUPS / f"{block.text}.py").exists():
            raise FileNotFoundError(f"no setup {block.text!r} in tests/docs/setups ({_setups()})")
        import_module(f"tests.docs.setups.{block.text}").setup(self.names)

    def bash(self, block: Block) -> None:
        """Check every command of a block, and run those that are quick."""
        for command in commands.split(block.text):
            commands.check(command)

    def compare(self, expected: str) -> None:
        """Hold what the block before printed against what the page says."""
        found, expected = self.printed.strip(), expected.strip()
        if found != expected:
            raise AssertionError(f"the block before prints\n{found}\nand the page says\n{expected}")


def run(path: Path) -> Iterator[dict[str, Any]]:
    """Outcomes of a page's blocks, one after the other."""
    page, skipped, unbound = Page(path), "", False
    linecache.checkcache()
    for block in blocks(path):
        outcome, reason = "passed", ""
        if "not run" in block.marks:
            continue
        try:
            if unbound:  # its setup was skipped
                outcome, reason = "skipped", skipped
            else:
                page.run(block)
        except BaseException as error:
            outcome, reason = "failed", _reason(error, page)
            if _missing(error) or (skipped and isinstance(error, NameError)):
                skipped = _missing(error) or skipped
                outcome, reason = "skipped", skipped
        unbound = outcome == "skipped" and block.language == "setup"
        yield {"line": block.line, "outcome": outcome, "reason": reason}


def _missing(error: BaseException) -> str:
    """The optional library that is not installed here, if that is what the error says."""
    from srt_plugins import MissingDependencyError

    if isinstance(error, MissingDependencyError):
        return str(error).partition(",")[0].partition("\n")[0]
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    # A module that a library lacks is a mistake of the page.
    return f"needs {name}" if name in _OPTIONAL and sys.modules.get(name) is None else ""


def _reason(error: BaseException, page: Page) -> str:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, NameError) and error.name not in page.names:
        text += (
            f"\nThe page never binds {error.name!r}: import or make it, or put "
            f"<!-- setup: NAME --> before the block, of tests/docs/setups ({_setups()})."
        )
    return text


def _setups() -> str:
    return ", ".join(sorted(p.stem for p in SETUPS.glob("*.py") if p.stem != "__init__"))
