"""Makes ``mmseg.models`` importable in every test file here, with or without compiled ops."""

from __future__ import annotations

import pytest

pytest.importorskip("mmseg")

import srt_plugins.mmseg  # noqa: F401  (before mmseg.models: the placeholder for the ops)
