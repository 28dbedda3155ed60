"""Images without labels for MMSegmentation's own evaluation: references stand in for truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..adapters import describe, find_backbone
from ..errors import ConfigError
from .held_out import reference
from .methods import inference_by
from .mmseg_session import Session
from .rows import Row
from .runs import Runs

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_LABELS = ("LoadAnnotations", "LoadDepthAnnotation")


def take_labels_away(cfg: Any, folder: str | Path | None) -> None:
    """Change a config's test data so that they are loaded without labels.

    Args:
        cfg: is changed.
        folder: of images, which replace those of the config; None = keep those.

    Raises:
        ConfigError: no images in the folder.
    """
    loader = cfg.get("test_dataloader")
    if loader is None:
        return  # the session says so
    dataset = loader.dataset
    while folder is not None and not dataset.get("pipeline"):  # wrapped or joined datasets
        inner = dataset.get("dataset") or (dataset.get("datasets") or [None])[0]
        if inner is None:
            break
        dataset = inner
    steps = [step for step in dataset.get("pipeline") or [] if step["type"] not in _LABELS]
    if folder is None:
        dataset.pipeline = steps
        return
    if not any(path.suffix.lower() in _ENDINGS for path in _files(folder)):
        raise ConfigError(
            f"Expected --images-from to be a folder of images that end in {', '.join(_ENDINGS)}, "
            f"got {folder}, which has none."
        )
    loading = [step for step in steps if step["type"] == "LoadImageFromFile"]
    others = [step for step in steps if not str(step["type"]).startswith("Load")]
    loader.dataset = {
        "type": "ImagesOfFolder",
        "folder": str(folder),
        "metainfo": _metainfo(cfg, dataset),
        "pipeline": [*(loading or [{"type": "LoadImageFromFile"}]), *others],
        "test_mode": True,
        "_scope_": "mmseg",
    }
    _register()


@contextmanager
def references(session: Session, runs: Runs) -> Iterator[None]:
    """While active, items of a session's data hold the reference in place of labels."""
    kept = [_reference(session, runs, item) for item in _items(session)]
    dataset = session.dataset
    plain = type(dataset)

    def item(self: Any, index: int) -> Any:
        loaded = plain.__getitem__(self, index)
        loaded["data_samples"].set_data(kept[index])
        return loaded

    names = ("__module__", "__qualname__", "__doc__")
    body = {"__getitem__": item, **{n: getattr(plain, n) for n in names}}
    dataset.__class__ = type(plain.__name__, (plain,), body)
    try:
        yield
    finally:
        dataset.__class__ = plain


def _items(session: Session) -> Iterator[Any]:
    for index in range(len(session.dataset)):
        yield session.dataset[index]


def _reference(session: Session, runs: Runs, item: Any) -> dict[str, Any]:
    from mmengine.dataset import pseudo_collate

    model: Any = session.model
    patch = describe(find_backbone(model)).patch or 1
    model.eval()
    plain = runs.active(Row("reference", "plain", "plain"))
    with plain, inference_by(model, reference(patch)), torch.no_grad():
        (sample,) = model.test_step(pseudo_collate([item]))
    if "pred_depth_map" in sample:
        return {"gt_depth_map": sample.pred_depth_map.cpu()}
    return {"gt_sem_seg": sample.pred_sem_seg.cpu()}


def _metainfo(cfg: Any, dataset: Any) -> dict[str, Any]:
    """Classes and palette of the config's own dataset."""
    from mmengine.registry import DefaultScope
    from mmseg.registry import DATASETS

    kind = dataset.get("type")
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmseg")):
        known = DATASETS.get(kind) if isinstance(kind, str) else kind
    own = dict(getattr(known, "METAINFO", None) or {})
    own.update(dataset.get("metainfo") or {})
    return own


def _files(folder: str | Path) -> list[Path]:
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(
            f"Expected --images-from to be a folder of images, got {folder}, which "
            f"{'is a file' if root.is_file() else 'does not exist'}."
        )
    return sorted(path for path in root.iterdir() if path.is_file())


def _register() -> None:
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    if "ImagesOfFolder" in DATASETS:
        return

    @DATASETS.register_module()
    class ImagesOfFolder(BaseSegDataset):
        """All images of a folder, by name, without labels."""

        def __init__(self, folder: str, **keywords: Any) -> None:
            self.folder = folder
            super().__init__(**keywords)

        def load_data_list(self) -> list[dict[str, Any]]:
            paths = [path for path in _files(self.folder) if path.suffix.lower() in _ENDINGS]
            return [
                {
                    "img_path": str(path),
                    "label_map": None,
                    "reduce_zero_label": False,
                    "seg_fields": [],
                }
                for path in paths
            ]
