"""The fenced code blocks of a Markdown page, and the comments that tell how to run them.

What a page can say, as HTML comments that no reader sees:

- ``<!-- setup: NAME -->``: here ``tests/docs/setups/NAME.py`` is given the page's names. It binds
  what the page takes for granted (a model, a config), or checks what a block left behind.
- ``<!-- config -->``, ``<!-- config: NAME -->``: the next block is a config of MMEngine, by itself
  or on top of ``tests/docs/bases/NAME.py``.
- ``<!-- output -->``: the next block is what the block before it prints.
- ``<!-- not run: REASON -->``: the next block cannot be run, and why. They are counted.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,}) *(?P<language>[\w+-]*)(?P<rest>.*)$")
_COMMENT = re.compile(r"^\s*<!--\s*(?P<key>setup|config|output|not run)\b:?(?P<value>.*?)-->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block, or a setup, at its place in a page.

    Attributes:
        line: of the fence in the page, from 1.
        language: the word behind the fence; ``"setup"`` for a setup.
        text: what stands in it, without the fence's indent; of a setup its name.
        marks: what the comments right before it say.
    """

    line: int
    language: str
    text: str
    marks: dict[str, str]


def blocks(page: Path) -> list[Block]:
    """Setups and fenced blocks of a page, in their order.

    Raises:
        ValueError: a fence is not closed, or a comment has no block behind it.
    """
    found: list[Block] = []
    marks: dict[str, str] = {}
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        comment, fence = _COMMENT.match(lines[at]), _FENCE.match(lines[at])
        at += 1
        if comment and comment["key"] == "setup":
            found.append(Block(at, "setup", comment["value"].strip(), {}))
        elif comment:
            marks[comment["key"]] = comment["value"].strip()
        elif fence:
            start, end = at, _closing(lines, at, fence["ticks"], page)
            text = textwrap.dedent("\n".join(lines[start:end]))
            found.append(Block(start, fence["language"], text, marks))
            marks, at = {}, end + 1
        elif marks and lines[at - 1].strip():
            raise ValueError(f"{page.name}:{at - 1}: no code block follows the comment {marks}")
    return found


def _closing(lines: list[str], start: int, ticks: str, page: Path) -> int:
    for at in range(start, len(lines)):
        if re.fullmatch(f" *{re.escape(ticks)}[{ticks[0]}]* *", lines[at]):
            return at
    raise ValueError(f"{page.name}:{start}: the code block is not closed")
