"""Every code block of the README and of the pages is run, page by page, in its order.

What pages can say about their blocks is in ``tests/docs/blocks.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Blocks that cannot be run, each with its reason in the page.
NOT_RUN = 3


def _every() -> list:
    """The blocks of all pages that are to be run; a page that cannot be read is a parameter too."""
    found = []
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        try:
            for block in blocks(page):
                if "not run" not in block.marks:
                    found.append(pytest.param(page, block, id=f"{name}:{block.line}"))
        except ValueError as error:
            found.append(pytest.param(page, error, id=name))
    return found


@pytest.mark.parametrize(("page", "block"), _every())
def test_a_block_runs(page, block, outcomes):
    if not isinstance(block, Block):
        pytest.fail(str(block), pytrace=False)
    results, log = outcomes(page)
    if block.line not in results:
        pytest.fail(f"the page ended before this block\n{log[-4000:]}", pytrace=False)
    found = results[block.line]
    if found["outcome"] == "skipped":
        pytest.skip(found["reason"])
    if found["outcome"] == "failed":
        pytest.fail(f"{page.name}:{block.line}\n{found['reason']}\n{log[-2000:]}", pytrace=False)


def test_few_blocks_are_not_run_and_each_says_why():
    left_out = {
        f"{page.relative_to(ROOT)}:{block.line}": block.marks["not run"]
        for page in PAGES
        for block in blocks(page)
        if "not run" in block.marks
    }
    assert len(left_out) <= NOT_RUN, left_out
    assert all(len(reason.split()) >= 3 for reason in left_out.values()), left_out
