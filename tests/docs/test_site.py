"""The site builds without network and without warnings, and its pages ask for nothing outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs", reason="needs the docs extra")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

# Any name that is looked up, any address that is connected to, ends the build.
_BUILD = """
import socket, sys
def refuse(*args, **keywords):
    raise SystemExit(f"the build asks the network for {args}")
socket.getaddrinfo = socket.socket.connect = refuse
from mkdocs.__main__ import cli
cli(["build", "--quiet", "--site-dir", sys.argv[1]])
"""


class Page(HTMLParser):
    """What a page loads, what it links to, and the places in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.links, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places.add(found.get("id"))
        if tag == "a":
            self.places.add(found.get("name"))
            self.links.append(found.get("href") or "")
        elif tag == "link" and found.get("rel") not in ("prev", "next", "canonical"):
            self.loads.append(found["href"])
        elif found.get("src"):
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-c", _BUILD, str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_the_docs_is_built(site, pages):
    built = {path.relative_to(site).with_suffix(".md").as_posix() for path in pages}
    written = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert written <= built


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        outside = [load for load in page.loads if urlsplit(load).netloc]
        assert not outside, f"{path.name} loads {outside}"


def test_styles_load_nothing_from_elsewhere(site):
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style


def test_every_link_leads_somewhere(pages):
    for path, page in pages.items():
        for link in [*page.loads, *page.links]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert to.exists(), f"{path}: {link}"
            if parts.fragment and to in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[to].places, f"{path}: {link}"


def test_pages_share_text_with_the_readme_and_the_docstrings(site):
    pitch = (ROOT / "README.md").read_text(encoding="utf-8").split("**")[1].split()[0]
    front = (site / "index.html").read_text(encoding="utf-8")
    assert pitch in front and "include:" not in front and "setup:" not in front
    reference = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="srt_plugins.attach"' in reference and ":func:" not in reference


def test_the_search_index_has_the_pages_and_the_reference(site):
    docs = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    places = {entry["location"] for entry in docs}
    assert {"start.html", "settings.html", "api/index.html#srt_plugins.attach"} <= places
