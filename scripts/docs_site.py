"""MkDocs hooks: what the site takes from the repository besides ``docs/``.

- ``<!-- include: README.md#section -->`` up to ``<!-- include: end -->`` becomes that section of
  the file (``#`` alone: what stands before its first section); what is between the two is for
  readers of the repository.
- Files outside of ``docs/`` that pages link to become part of the site at their own paths: pages,
  pictures, sources as pages, folders as lists. So every link works in the repository and in the
  site, and nothing is copied by hand.
- ``srt_plugins.adapters`` and kin, which are mapped at install, are copied to where
  mkdocstrings finds them.
"""

from __future__ import annotations

import atexit
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
MAPPED = ("adapters", "d2_configs", "mmseg_configs")
_INCLUDE = re.compile(
    r"<!-- include: (?P<file>[\w./-]+)#(?P<slug>[\w-]*) -->.*?<!-- include: end -->", re.DOTALL
)
_LINK = re.compile(r"(?P<open>\]\()(?P<target>[^)\s]+)(?P<close>\))")
_FENCED = re.compile(r"^( *)(```+)[^\n]*\n.*?^\1\2`*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_OURS = re.compile(r"^<!--.*?-->\n?", re.MULTILINE)
# In the list of results, `name.*` and the like become links to the tables of that name.
_RESULTS = "benchmarks/results/README.md"
_NAMED = re.compile(r"`(?P<pattern>[\w*]+(?:\.md|\.?\*))`")
_ASSETS = (".png", ".svg", ".json")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", "": "make"}


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: Any) -> Any:
    """A copy of the package as an install has it, for mkdocstrings; it follows no links."""
    sources = tempfile.TemporaryDirectory(prefix="srt-docs-")
    atexit.register(sources.cleanup)
    package = Path(sources.name) / "srt_plugins"
    only = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "srt_plugins", package, ignore=only)
    for name in MAPPED:
        shutil.copytree(ROOT / name, package / name, ignore=only)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [sources.name]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to outside of ``docs/``, and what those pages link to."""
    waiting = [path for page in _pages() for path in _linked(page)]
    waiting += [path for path in map(_repository_path, _nav_pages(config.nav)) if path]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or path.startswith("docs/") or path == "README.md":
            continue
        seen.add(path)
        files.append(_generated(path, config))
        waiting += _linked(ROOT / path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put included sections in, and turn links of the repository into links of the site."""
    source = _repository_path(page.file.src_uri) or f"docs/{page.file.src_uri}"
    if (ROOT / source).is_dir():
        source = f"{source}/README.md"
    here = page.file.src_uri
    parts, at = [], 0
    markdown = _with_tables(markdown, source)
    for found in _INCLUDE.finditer(markdown):
        parts.append(_relinked(markdown[at : found.start()], source, here))
        text = section((ROOT / found["file"]).read_text(encoding="utf-8"), found["slug"])
        parts.append(_relinked(text, found["file"], here))
        at = found.end()
    parts.append(_relinked(markdown[at:], source, here))
    return _OURS.sub("", "".join(parts))


def section(text: str, slug: str) -> str:
    """The body of a section of the second level; without a slug, what stands before the first.

    Raises:
        KeyError: there is no such section; lists those there are.
    """
    head, *rest = re.split(r"^## ", text, flags=re.MULTILINE)
    sections = {_slug(part.partition("\n")[0]): part.partition("\n")[2] for part in rest}
    sections[""] = head.partition("\n")[2]
    if slug not in sections:
        raise KeyError(f"no section {slug!r}; there are {', '.join(sections)}")
    return sections[slug].strip() + "\n"


def _slug(heading: str) -> str:
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def _relinked(text: str, source: str, here: str) -> str:
    """Links of a text that stands in the file ``source``, for the page ``here`` of the site."""

    def link(found: re.Match[str]) -> str:
        target = _target(found["target"], source)
        if target is None:
            return found[0]
        path, anchor = target
        to = _includer(anchor) if path == "README.md" else site_path(path)
        if to == here and anchor:
            return f"{found['open']}#{anchor}{found['close']}"
        relative = posixpath.relpath(to, posixpath.dirname(here) or ".")
        keep = f"#{anchor}" if anchor and path != "README.md" else ""
        return f"{found['open']}{relative}{keep}{found['close']}"

    kept, at = [], 0
    for code in _FENCED.finditer(text):
        kept += [_LINK.sub(link, text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*kept, _LINK.sub(link, text[at:])])


def _target(target: str, source: str) -> tuple[str, str] | None:
    """Path in the repository and anchor of a link; None for one that leads elsewhere."""
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = target.partition("#")
    if not path:
        return (source, anchor) if source == "README.md" else None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)), anchor


def _includer(slug: str) -> str:
    """The page that has a section of the README; the front page where none has it."""
    for page in _pages():
        if f"<!-- include: README.md#{slug} -->" in page.read_text(encoding="utf-8") and slug:
            return page.relative_to(ROOT / "docs").as_posix()
    return "index.md"


def site_path(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path.startswith("docs/"):
        return path[len("docs/") :]
    if (ROOT / path).is_dir():
        readme = f"{path}/README.md"
        return readme if (ROOT / readme).exists() else f"{path}/index.md"
    return path if path.endswith((".md", *_ASSETS)) else f"{path}.md"


def _repository_path(uri: str) -> str:
    """The file outside of ``docs/`` that a page of the site is made from; "" if there is none."""
    for path in (uri, uri[: -len(".md")], posixpath.dirname(uri)):
        if path and not (ROOT / "docs" / uri).exists() and (ROOT / path).exists():
            return path
    return ""


def _generated(path: str, config: Any) -> File:
    uri, full = site_path(path), ROOT / path
    if not full.exists():
        raise FileNotFoundError(f"a page links to {path}, which is not in the repository")
    if full.is_dir() and not (full / "README.md").exists():
        return File.generated(config, uri, content=_listing(path))
    if full.is_dir():
        return File.generated(config, uri, abs_src_path=str(full / "README.md"))
    if uri == path:
        return File.generated(config, uri, abs_src_path=str(full))
    language, text = _LANGUAGES.get(full.suffix, "text"), full.read_text(encoding="utf-8")
    front = "---\nsearch:\n  exclude: true\n---\n"
    return File.generated(
        config, uri, content=f"{front}# {full.name}\n\n`{path}`\n\n````{language}\n{text}\n````\n"
    )


def _listing(path: str) -> str:
    """A page for a folder without a README."""
    rows = []
    for file in sorted((ROOT / path).iterdir()):
        if file.is_file() and file.suffix in _LANGUAGES:
            rows.append(f"- [`{file.name}`]({file.name})")
        elif file.is_file():
            rows.append(f"- `{file.name}`, {file.stat().st_size / 2**20:.1f} MiB")
    return f"# {path}\n\n" + "\n".join(rows) + "\n"


def _linked(page: Path) -> list[str]:
    """What a page links to outside of ``docs/``, also in the sections that it includes."""
    source = page.relative_to(ROOT).as_posix()
    if page.is_dir():
        readme = page / "README.md"
        if not readme.exists():
            return [f"{source}/{f.name}" for f in page.iterdir() if f.suffix in _LANGUAGES]
        page, source = readme, f"{source}/README.md"
    elif page.suffix != ".md":
        return []
    text = _with_tables(page.read_text(encoding="utf-8"), source)
    found = _targets(_INCLUDE.sub("", text), source)
    for include in _INCLUDE.finditer(text):
        included = (ROOT / include["file"]).read_text(encoding="utf-8")
        found += _targets(section(included, include["slug"]), include["file"])
    return found


def _with_tables(text: str, source: str) -> str:
    """The list of results with links to its tables; any other text as it is."""
    tables = [path.name for path in sorted((ROOT / source).parent.glob("*.md"))]

    def links(found: re.Match[str]) -> str:
        named = [name for name in tables if fnmatch(name, found["pattern"])]
        return ", ".join(f"[{name}]({name})" for name in named) or found[0]

    return _NAMED.sub(links, text) if source == _RESULTS else text


def _targets(text: str, source: str) -> list[str]:
    links = (_target(found["target"], source) for found in _LINK.finditer(_FENCED.sub("", text)))
    return [link[0] for link in links if link is not None]


def _pages() -> list[Path]:
    return sorted((ROOT / "docs").rglob("*.md"))


def _nav_pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _nav_pages(part)
