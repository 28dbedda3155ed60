"""A page with mistakes: each is found, and said in words that help."""

from __future__ import annotations

import pytest

from tests.docs.blocks import blocks

# Block, and what is said of it; nothing where it is right.
CASES = [
    ("```python\nhalf = 1 / 2\n```", ""),
    ("```python\nprint(half)\n```\n<!-- output -->\n```text\n0.5\n```", ""),
    ("<!-- output -->\n```text\n0.25\n```", "prints\n0.5\nand the page says\n0.25"),
    ("```python\nattach(model)\n```", "The page never binds 'attach': import or make it"),
    ("```python\nmodel = dict(backbone=dict())\n```", "mark it <!-- config -->"),
    ("```python\nhalf.none()\n```", "half.none()"),  # the line of the page
    ("<!-- setup: nothing -->", "no setup 'nothing'"),
    ("```bash\nmake demo ARGS=--quick\n```", ""),
    ("```bash\nmake coffee\n```", "no target 'coffee'"),
    ("```bash\nmake demo SUGAR=1\n```", "no variable SUGAR"),
    ("```bash\nsrt compare mmseg CONFIG \\\n    CKPT --limit 3\n```", ""),
    ("```bash\nsrt compare mmseg CONFIG CKPT --limt 3\n```", "unknown option --limt"),
    ("```\nsrt tune mmseg CONFIG  # a comment\n```", "are required: checkpoint"),
    ("```bash\nsrt compare mmseg examples/none.py CKPT\n```", "there is no examples/none.py"),
    ("```bash\npip install '.[mmseg]'\n```", ""),
    ("```bash\npip install '.[sugar]'\n```", "no extra sugar"),
    ("```bash\nrm -r docs\n```", "no check knows the command 'rm'"),
    ("```yaml\n[1\n```", "expected ',' or ']'"),
    ("```fortran\nEND\n```", "no check knows the language 'fortran'"),
    ("- in a list\n\n    ```python\n    print(half)\n    ```", ""),
    ("<!-- not run: it needs a second machine -->\n```python\n1 / 0\n```", ""),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    written = tmp_path_factory.mktemp("page") / "mistakes.md"
    written.write_text("\n\n".join(text for text, _ in CASES))
    return written


def test_every_mistake_is_found_and_nothing_else(page, outcomes):
    results, log = outcomes(page)
    line = 1
    for text, said in CASES:
        end = line + len(text.splitlines()) + 1
        reasons = "".join(found["reason"] for at, found in results.items() if line <= at < end)
        assert said in reasons if said else not reasons, (text, reasons, log)
        line = end
    assert len(results) == len(blocks(page)) - 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```python\n1", "page.md:1: the code block is not closed"),
        ("<!-- config -->\nText.\n", "page.md:1: no code block follows"),
    ],
)
def test_a_page_that_cannot_be_read(tmp_path, text, said):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=said):
        blocks(page)
