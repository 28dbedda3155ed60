"""Train the detector of vitdet_scenes.py with Detectron2's trainer and write vitdet_scenes.pth.

    python examples/detection/train.py

About an hour and a half on one busy CPU core for the model and a quarter of one for the pictures.
The ViT starts from the segmentation model of examples/demo.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import SimpleTrainer, hooks
from detectron2.engine.defaults import default_writers
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn import functional as F

from srt_plugins.detectron2.weights import from_mmseg_vit

HERE = Path(__file__).resolve().parent


class BFloat16Trainer(SimpleTrainer):
    """Runs in bfloat16 on the CPU; Detectron2's own mixed precision demands a GPU."""

    def run_step(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            super().run_step()


def pretrained(net: nn.Module) -> None:
    """Load the demo's ViT; its position table becomes a square, without the class token."""
    path = HERE.parent / "demo" / "vit_scenes.pth"
    state = from_mmseg_vit(torch.load(path, weights_only=True)["state_dict"])
    state = {key: value.float() for key, value in state.items()}
    class_token, table = state["pos_embed"].split([1, 192], dim=1)
    grid = table.transpose(1, 2).unflatten(2, (12, 16))  # trained on 192 x 256 pixels
    square = F.interpolate(grid, size=(14, 14), mode="bicubic", align_corners=False)
    state["pos_embed"] = torch.cat([class_token, square.flatten(2).transpose(1, 2)], dim=1)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert all("rel_pos" in key for key in missing), missing
    assert set(unexpected) == {"cls_token", "norm.weight", "norm.bias"}, unexpected


def main() -> None:
    """Train, evaluate and export half-precision weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "vitdet_scenes.pth")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model")
    parser.add_argument("opts", nargs="*", help="overrides of the config: train.max_iter=100")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    setup_logger()
    setup_logger(name="fvcore")
    cfg = LazyConfig.load(str(HERE / "vitdet_scenes.py"))
    cfg = LazyConfig.apply_overrides(cfg, args.opts)
    Path(cfg.train.output_dir).mkdir(parents=True, exist_ok=True)
    model = instantiate(cfg.model)
    pretrained(model.backbone.net)
    cfg.optimizer.params.model = model
    train_loader = instantiate(cfg.dataloader.train)
    test_loader = instantiate(cfg.dataloader.test)
    trainer = BFloat16Trainer(model, train_loader, instantiate(cfg.optimizer))
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)

    def evaluate() -> Any:
        results = inference_on_dataset(model, test_loader, instantiate(cfg.dataloader.evaluator))
        print_csv_format(results)
        return results

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, evaluate),
            hooks.PeriodicWriter(
                default_writers(cfg.train.output_dir, cfg.train.max_iter),
                period=cfg.train.log_period,
            ),
        ]
    )
    trainer.train(0, cfg.train.max_iter)
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save({"model": state}, args.out)
    logging.getLogger("detectron2").info(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
