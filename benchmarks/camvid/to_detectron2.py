"""Write an MMSegmentation checkpoint of vit_camvid.py under the names of vit_camvid_d2.py:

python benchmarks/camvid/to_detectron2.py vit_camvid.pth vit_camvid_d2.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

from srt_plugins.detectron2.weights import from_mmseg_vit

TRAINED, TESTED = (16, 16), (23, 30)  # tokens of 256 x 256 and of 368 x 480 pixels


def converted(state):
    """The same weights; the position table in the size of the test images, resized as
    MMSegmentation resizes it in every forward (timm's own resizing uses another kernel).
    """
    vit = from_mmseg_vit(state)
    table = vit["pos_embed"]
    grid = table[:, 1:].transpose(1, 2).unflatten(2, TRAINED)
    grid = F.interpolate(grid, size=TESTED, mode="bicubic", align_corners=False)
    vit["pos_embed"] = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    named = {f"backbone.net.model.{key}": value for key, value in vit.items()}
    for part in ("weight", "bias"):
        named[f"sem_seg_head.predictor.{part}"] = state[f"decode_head.conv_seg.{part}"]
    return named


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    torch.save({"model": converted(state)}, args.out)


if __name__ == "__main__":
    main()
