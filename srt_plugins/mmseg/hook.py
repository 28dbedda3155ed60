"""SRT around test and validation loops, without touching the model's config."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmseg.models.segmentors.base import BaseSegmentor
from torch import nn

from ..adapters import find_backbone
from ..errors import CheckpointError, ConfigError
from ..settings import Settings
from ..wrapper import srt_enabled
from .uncertainty import dispersion_in_samples

LOOPS = ("test", "val")


# In the root registry, so that every scope finds it.
@HOOKS.register_module()
class SRTHook(Hook):
    """Turns SRT on for the test loop (and the validation loop) of a Runner.

    The model's config stays as it is; in a config, ``custom_hooks = [dict(type="SRTHook",
    level=3)]``; from a command line, ``--cfg-options
    default_hooks.srt.type=srt_plugins.mmseg.SRTHook default_hooks.srt.level=3``. The model may sit
    in DistributedDataParallel and test-time-augmentation containers. Where the config wraps the
    backbone already, the keywords replace its settings in these loops.

    After the loop the model is as before. MMEngine calls no hook when a loop fails: SRT then stays
    on until the runner starts its next run or loop.

    With ``dispersion=True`` every data sample of a segmentor gets ``srt_dispersion``; see
    :func:`srt_plugins.mmseg.with_dispersion`.

    Args:
        on: loops to turn SRT on in, of ``"test"`` and ``"val"``.
        depth_std: also ``srt_depth_std``, the standard deviation over views of predicted depth in
            metres, which runs the whole depth estimator once more per view.
        **keywords: see :class:`srt_plugins.Settings`.

    Raises:
        ConfigError: an unknown loop or keyword, when the hook is built; one that does not fit the
            model, before its weights are loaded.
        CheckpointError: the loaded checkpoint has no weights of the backbone; before the loop.
    """

    priority = "ABOVE_NORMAL"  # before EMAHook copies the model in before_run

    def __init__(
        self, on: str | Sequence[str] = ("test",), depth_std: bool = False, **keywords: Any
    ) -> None:
        self.on = (on,) if isinstance(on, str) else tuple(on)
        if not self.on or not set(self.on) <= set(LOOPS):
            raise ConfigError(f"Expected on to hold some of {', '.join(LOOPS)}, got {on!r}.")
        settings = Settings.of(**keywords)
        if depth_std and not settings.dispersion:
            raise ConfigError(
                "Expected dispersion=True with depth_std=True, got dispersion=False; the standard "
                "deviation of depth comes beside the dispersion of features."
            )
        self.depth_std = depth_std
        self.keywords = keywords
        self._active = ExitStack()
        self._unloaded = ""

    def before_run(self, runner: Any) -> None:
        """Check that the settings fit the model, before weights are loaded or anything runs."""
        self._turn_off()
        with ExitStack() as stack:
            self._enter(stack, runner.model)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Called before the weights go into the model; watch whether the backbone gets any."""
        backbone = find_backbone(runner.model)
        own = list(backbone.state_dict())

        def watch(state_dict: dict, prefix: str, *_: Any) -> None:
            handle.remove()
            if own and not any(prefix + key in state_dict for key in own):
                given = state_dict or checkpoint.get("state_dict", checkpoint)
                self._unloaded = (
                    f"Expected the loaded checkpoint to hold weights of {type(backbone).__name__}, "
                    f"such as {prefix + own[0]!r}; its keys are "
                    f"{', '.join(repr(k) for k in list(given)[:3])}, ... SRT would ensemble random "
                    "weights: check the checkpoint and the prefix of its keys."
                )

        self._unloaded = ""
        if not getattr(backbone, "is_init", False):
            # The keys as they arrive, after the runner has revised them.
            handle = backbone._register_load_state_dict_pre_hook(watch)

    def before_train(self, runner: Any) -> None:
        """SRT is off in training, and training brings its own weights."""
        self._turn_off()
        self._unloaded = ""

    def before_val(self, runner: Any) -> None:
        """Turn SRT on."""
        self._turn_on("val", runner.model)

    def after_val(self, runner: Any) -> None:
        """Put the model back."""
        self._turn_off()

    def before_test(self, runner: Any) -> None:
        """Turn SRT on."""
        self._turn_on("test", runner.model)

    def after_test(self, runner: Any) -> None:
        """Put the model back."""
        self._turn_off()

    def _turn_on(self, loop: str, model: nn.Module) -> None:
        self._turn_off()
        if loop not in self.on:
            return
        if self._unloaded:
            raise CheckpointError(self._unloaded)
        self._enter(self._active, model)

    def _enter(self, stack: ExitStack, model: nn.Module) -> None:
        stack.enter_context(srt_enabled(model, **self.keywords))
        segmentor = any(isinstance(part, BaseSegmentor) for part in model.modules())
        if self.keywords.get("dispersion") and (segmentor or self.depth_std):
            stack.enter_context(dispersion_in_samples(model, self.depth_std))

    def _turn_off(self) -> None:
        self._active.close()
