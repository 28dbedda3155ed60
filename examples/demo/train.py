"""Train the demo model of vit_scenes.py and write vit_scenes.pth (plain tensors).

    python examples/demo/train.py --work-dir work_dirs/demo --bf16

About 45 minutes on one busy CPU core for the model and half a core for the pictures.
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
from torch import nn

HERE = Path(__file__).resolve().parent


@OPTIM_WRAPPERS.register_module()
class CPUBFloat16OptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 on the CPU; MMEngine's own wrapper demands a GPU."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def export(state: dict[str, torch.Tensor], classes: tuple[str, ...], path: Path) -> None:
    """Write weights as half precision with nothing but plain types, for `weights_only` loading."""
    kept = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    meta = {"dataset_meta": {"classes": list(classes)}}
    torch.save({"state_dict": kept, "meta": meta}, path)
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")


def main() -> None:
    """Train, or only re-export a checkpoint of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work-dir", default="work_dirs/demo", help="logs and training checkpoints"
    )
    parser.add_argument("--out", type=Path, default=HERE / "vit_scenes.pth")
    parser.add_argument("--iters", type=int, help="iterations, instead of the config's")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 forward pass on the CPU")
    parser.add_argument("--export", type=Path, help="only export this training checkpoint")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    cfg = Config.fromfile(str(HERE / "vit_scenes.py"))
    cfg.work_dir = args.work_dir
    if args.iters:
        cfg.train_cfg.max_iters = cfg.param_scheduler[1].end = args.iters
    if args.bf16:
        cfg.optim_wrapper.type = "CPUBFloat16OptimWrapper"
    if args.export:
        # A checkpoint of the user's own run: MMEngine stores more than tensors in it.
        saved = torch.load(args.export, map_location="cpu", weights_only=False)
        export(saved["state_dict"], saved["meta"]["dataset_meta"]["classes"], args.out)
        return
    runner = Runner.from_cfg(cfg)
    runner.train()
    export(runner.model.state_dict(), runner.train_dataloader.dataset.metainfo["classes"], args.out)


if __name__ == "__main__":
    main()
