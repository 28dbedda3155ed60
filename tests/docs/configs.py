"""Blocks that are configs of MMEngine: they are loaded, and what they describe is built and run."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "bases"


def run(text: str, base: str) -> None:
    """Load a config, on top of a base of ours where it names none itself; build it and run it.

    A config with test data is tested whole; of any other the backbone runs on an image.
    """
    import mmseg  # noqa: F401  (where it is missing, that is said, not what the config lacks)
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    # One file each: MMEngine keeps what it has read.
    path = Path(f"config{len(list(Path().glob('config*.py')))}.py")
    if base:
        text = f"_base_ = [{str(FOLDER / base) + '.py'!r}]\n{text}"
    path.write_text(text, encoding="utf-8")
    cfg = Config.fromfile(path)
    if base:
        cfg.work_dir = "work"
        runner = Runner.from_cfg(cfg)
        model = runner.model
        metrics = runner.test()
        assert metrics, "the test of the config measured nothing"
    else:
        from mmseg.registry import MODELS

        init_default_scope("mmseg")
        model = MODELS.build(cfg.model).eval()
        with torch.no_grad():
            model.extract_feat(torch.zeros(1, 3, 64, 96))
    _check_srt(text, model)


def _check_srt(text: str, model) -> None:
    """A config that names the wrapper has a wrapped model, with views that ran."""
    from srt_plugins import mean_views_used
    from srt_plugins.wrapper import wrapped

    if "SRTWrapper" in text:
        assert wrapped(model), "the config names SRTWrapper, but nothing in the model is wrapped"
        assert mean_views_used(model) > 1, "the backbone was wrapped, but ran one view"
