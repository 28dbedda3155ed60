"""Caches of Hugging Face and torch.hub with small models under released names.

The libraries' own loaders read them, as they do on a machine that has downloaded the real ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_HUBCONF = """
dependencies = ["torch"]
from tests.hub.models import Depther, DinoVisionTransformer


def dinov2_vits14(pretrained=True):
    return DinoVisionTransformer().eval()


def dinov2_vits14_ld(pretrained=True):
    return Depther().eval()
"""


def put(text: str, folder: Path) -> None:
    """Put the models that a page names into the caches below ``folder``."""
    for name, save in _MODELS.items():
        place = folder / "huggingface" / "hub" / f"models--{name.replace('/', '--')}"
        asked = name.rpartition("/")[2].partition(".")[0] if name.startswith("timm/") else name
        if asked in text and not place.exists():
            (place / "refs").mkdir(parents=True)
            (place / "refs" / "main").write_text("0" * 40)
            (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
            try:
                save(place / "snapshots" / ("0" * 40))
            except ImportError:  # the page says so when it imports the library
                shutil.rmtree(place)
    if "facebookresearch/dinov2" in text:
        checkout = folder / "torch" / "hub" / "facebookresearch_dinov2_main"
        checkout.mkdir(parents=True, exist_ok=True)
        (checkout / "hubconf.py").write_text(_HUBCONF)


def _depth_anything(place: Path) -> None:
    from transformers import DPTImageProcessor

    from tests.transformers import models

    models.depth_anything().save_pretrained(place)
    size = dict(height=70, width=70)
    DPTImageProcessor(size=size, ensure_multiple_of=14, keep_aspect_ratio=True).save_pretrained(
        place
    )


def _upernet(place: Path) -> None:
    from transformers import SegformerImageProcessor

    from tests.transformers import models

    models.upernet().save_pretrained(place)
    SegformerImageProcessor(size=dict(height=61, width=77)).save_pretrained(place)


def _timm(name: str):
    def save(place: Path) -> None:
        import timm
        from safetensors.torch import save_file

        save_file(timm.create_model(name).state_dict(), place / "model.safetensors")

    return save


_MODELS = {
    "depth-anything/Depth-Anything-V2-Small-hf": _depth_anything,
    "openmmlab/upernet-swin-tiny": _upernet,
    "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k": _timm("vit_tiny_patch16_224"),
    "timm/vit_small_patch14_dinov2.lvd142m": _timm("vit_small_patch14_dinov2"),
}
