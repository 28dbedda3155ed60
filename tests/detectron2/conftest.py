"""Skips this folder visibly where there is no Detectron2, which the extras cannot install."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
