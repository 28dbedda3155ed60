"""Train both depth heads of vit_scenes_depth.py and write their weights as DINOv2 ships its own:
a file for the backbone and one for each head (half precision, plain tensors).

    python examples/depth/train.py --work-dir work_dirs/depth --bf16

About an hour on one CPU core, and 4 GB of memory for the scenes. The ViT starts from the
segmentation model of examples/demo.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from timm.layers import resample_patch_embed
from torch import nn
from torch.nn import functional as F

from srt_plugins.detectron2.weights import from_mmseg_vit
from srt_plugins.mmseg.dinov2_weights import to_dinov2

HERE = Path(__file__).resolve().parent
PARTS = {"backbone": "backbone.", "dpt": "decode_head.", "linear": "auxiliary_head."}


@OPTIM_WRAPPERS.register_module()
class CPUBFloat16OptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 on the CPU; MMEngine's own wrapper demands a GPU."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def pretrained(backbone: nn.Module) -> None:
    """Load the demo's ViT, from patches of 16 to patches of 14 and onto a square table."""
    path = HERE.parent / "demo" / "vit_scenes.pth"
    state = from_mmseg_vit(torch.load(path, weights_only=True)["state_dict"])
    state = {key: value.float() for key, value in state.items()}
    weight = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = resample_patch_embed(weight, [14, 14])
    class_token, table = state["pos_embed"].split([1, 192], dim=1)
    grid = table.transpose(1, 2).unflatten(2, (12, 16))  # trained on 192 x 256 pixels
    square = F.interpolate(grid, size=(16, 16), mode="bicubic", align_corners=False)
    state["pos_embed"] = torch.cat([class_token, square.flatten(2).transpose(1, 2)], dim=1)
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    assert all(key.endswith(".gamma") for key in missing), missing  # LayerScale starts at 1
    assert not unexpected, unexpected
    backbone.is_init = True


def start_in_the_middle(head: nn.Module, metres: float = 12.0) -> None:
    """Let a head that regresses depth start at a usual depth, where its ReLU is alive."""
    nn.init.constant_(head.conv_depth.head[-1].bias, metres)


def export(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write one file for each part; heads under the name of the head that is tested."""
    total = 0.0
    for part, prefix in PARTS.items():
        own = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        own = {k: v.half() if v.is_floating_point() else v for k, v in own.items()}
        path = folder / f"vit_scenes_depth_{part}.pth"
        if part == "backbone":
            torch.save(to_dinov2(own), path)
        else:
            kept = {f"decode_head.{key}": value for key, value in own.items()}
            torch.save({"state_dict": kept, "meta": {}}, path)
        total += path.stat().st_size / 2**20
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")
    print(f"in all: {total:.2f} MiB")


def main() -> None:
    """Train, or only export a checkpoint of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work-dir", default="work_dirs/depth", help="logs and training checkpoints"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the weights")
    parser.add_argument("--iters", type=int, help="iterations, instead of the config's")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 forward pass on the CPU")
    parser.add_argument("--export", type=Path, help="only export this training checkpoint")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    if args.export:
        # A checkpoint of the user's own run: MMEngine stores more than tensors in it.
        saved = torch.load(args.export, map_location="cpu", weights_only=False)
        export(saved["state_dict"], args.out)
        return
    cfg = Config.fromfile(str(HERE / "vit_scenes_depth.py"))
    cfg.work_dir = args.work_dir
    cfg.model.update(decode_head=cfg.dpt_head, auxiliary_head=cfg.linear_head)
    if args.iters:
        cfg.train_cfg.max_iters = cfg.param_scheduler[1].end = args.iters
    if args.bf16:
        cfg.optim_wrapper.type = "CPUBFloat16OptimWrapper"
    runner = Runner.from_cfg(cfg)
    pretrained(runner.model.backbone)
    runner.model.init_weights()
    start_in_the_middle(runner.model.decode_head)
    runner.train()
    export(runner.model.state_dict(), args.out)


if __name__ == "__main__":
    main()
