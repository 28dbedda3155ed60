"""Griffe extension: the Sphinx roles of docstrings (``:func:`attach```) become links."""

from __future__ import annotations

import re
from typing import Any

from griffe import Alias, Extension, Object

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`(?P<short>~?)(?P<name>[\w.]+)`")


class Roles(Extension):
    """Rewrites docstrings as they are loaded."""

    def on_object(self, *, obj: Object | Alias, **_: Any) -> None:
        """Links to objects of this project; other names are shown as code."""
        if obj.is_alias or obj.docstring is None:
            return

        def link(found: re.Match[str]) -> str:
            name = found["name"]
            shown = name.rpartition(".")[2] if found["short"] else name
            if name.startswith("srt_plugins"):
                # Optional: code where the site has no such object.
                return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'
            return f"`{shown}`"

        obj.docstring.value = _ROLE.sub(link, obj.docstring.value)
