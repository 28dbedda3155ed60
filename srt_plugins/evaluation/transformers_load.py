"""Models and image processors of transformers, as ``save_pretrained`` writes them."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.patch import overridden
from ..errors import CheckpointError, ConfigError, MissingDependencyError, SRTError
from .checkpoint import LoadReport
from .files import beside

DTYPES = ("float32", "bfloat16", "float16")
# Task, auto class, and the table of the architectures that it builds.
_AUTO = (
    ("depth", "AutoModelForDepthEstimation", "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES"),
    (
        "semantic",
        "AutoModelForSemanticSegmentation",
        "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    ),
    (
        "semantic",
        "AutoModelForUniversalSegmentation",
        "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
    ),
)
_POST = {
    "depth": "post_process_depth_estimation",
    "semantic": "post_process_semantic_segmentation",
}
# Code that lies beside a model never runs; transformers would ask on the terminal whether it may.
_NO_CODE = {"trust_remote_code": False}
# Models that take their task in words, from a processor with a tokenizer.
_WITH_WORDS = ("oneformer",)


@dataclass(frozen=True)
class Preparation:
    """What makes a model's inputs of images.

    Attributes:
        processor: an image processor, or the processor of a model that is told its task in words
            as well (OneFormer).
    """

    processor: Any

    @property
    def image_processor(self) -> Any:
        """The image processor, which post-processes as well."""
        return getattr(self.processor, "image_processor", self.processor)

    def __call__(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """The model's inputs, ``pixel_values`` ``(B, C, H, W)`` among them.

        Args:
            images: of one size, for Pillow.

        Raises:
            ConfigError: an image became more than one input.
        """
        told = self.image_processor is not self.processor
        words = {"task_inputs": ["semantic"] * len(images)} if told else {}
        made = dict(self.processor(images=list(images), return_tensors="pt", **words))
        if len(made["pixel_values"]) != len(images):
            raise ConfigError(
                f"Expected {type(self.image_processor).__name__} to make one input of each image, "
                f"got {len(made['pixel_values'])} of {len(images)}: it splits images; set "
                "do_split_image to false in preprocessor_config.json."
            )
        return made


@dataclass
class Loaded:
    """A model with what prepares its inputs; the task is ``"depth"`` or ``"semantic"``."""

    model: Any
    prepare: Preparation
    task: str
    report: LoadReport

    def placed(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs on the model's device, pixels in its dtype."""
        device, dtype = self.model.device, self.model.dtype
        return {
            name: one.to(device, dtype if one.is_floating_point() else None)
            for name, one in inputs.items()
        }

    def outputs(self, inputs: dict[str, Tensor]) -> Any:
        """The model's outputs in float32, which post-processing may need."""
        outputs = self.model(**inputs)
        changed = {
            name: one.float()
            for name, one in outputs.items()
            if isinstance(one, Tensor) and one.is_floating_point() and one.dtype != torch.float32
        }
        return type(outputs)(**{**outputs, **changed}) if changed else outputs


def import_transformers() -> None:
    """Raise :class:`MissingDependencyError` unless transformers and Pillow are installed."""
    for package, name in (("transformers", "transformers"), ("PIL", "pillow")):
        try:
            found = importlib.util.find_spec(package)
        except ValueError:  # blocked by a None in sys.modules
            found = None
        if found is None:
            raise MissingDependencyError(
                f"Comparing models of transformers needs {name}, which is not installed: "
                "pip install 'srt-plugins[transformers]' pillow."
            )


def load(
    model: str | Path, device: torch.device, dtype: str | None = None, trust: bool = False
) -> Loaded:
    """A model in eval mode with its image processor.

    Args:
        model: a folder that ``save_pretrained`` wrote, or a name that transformers finds.
        device: that of the model.
        dtype: one of :data:`DTYPES`; None = as the weights are saved.
        trust: load pickled weights that hold more than plain tensors; this runs code from them.

    Raises:
        ConfigError: no such model, no image processor, or a task that cannot be compared.
        CheckpointError: weights that cannot be loaded.
    """
    import transformers

    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"Expected dtype to be one of {', '.join(DTYPES)}, got {dtype!r}.")
    _check_folder(model)
    with _told(ConfigError, f"{model} to be {_kind(model)} with a config.json"):
        config = transformers.AutoConfig.from_pretrained(model, **_NO_CODE)
    task, auto = _auto_class(config, model)
    with _told(ConfigError, f"{model} to hold an image processor"):
        words = getattr(config, "model_type", None) in _WITH_WORDS
        kind = transformers.AutoProcessor if words else transformers.AutoImageProcessor
        prepare = Preparation(kind.from_pretrained(model, **_NO_CODE))
    if not hasattr(prepare.image_processor, _POST[task]):
        raise ConfigError(
            f"Expected an image processor with {_POST[task]}, got "
            f"{type(prepare.image_processor).__name__}; use the one that the model was published "
            "with."
        )
    safety = {"weights_only": False} if trust else {}
    with _told(
        CheckpointError,
        f"{model} to hold weights of {type(config).__name__.removesuffix('Config')}",
        "pickled weights that you trust need --trust-checkpoint (trust_checkpoint=True)",
    ):
        made, info = getattr(transformers, auto).from_pretrained(
            model, output_loading_info=True, **safety, **_NO_CODE
        )
    # Counting operations fails on some parameters that require gradients.
    made.to(device=device, dtype=getattr(torch, dtype) if dtype else None)
    made.eval().requires_grad_(False)
    keys = (tuple(sorted(map(str, info[f"{what}_keys"]))) for what in ("missing", "unexpected"))
    return Loaded(made, prepare, task, LoadReport(*keys))


def _check_folder(model: str | Path) -> None:
    folder = Path(model)
    if not folder.is_dir():
        written = str(model)
        # A name is `model` or `owner/model`.
        if folder.is_absolute() or written.startswith(".") or written.count("/") > 1:
            raise ConfigError(
                f"Expected model to be a folder that save_pretrained wrote, got {model}, which "
                f"does not exist{beside(folder, folders=True)}"
            )
        return
    for names, what in (
        (("config.json",), "model"),
        (("preprocessor_config.json", "processor_config.json"), "image processor"),
    ):
        if not any((folder / name).is_file() for name in names):
            raise ConfigError(
                f"Expected {model} to hold {names[0]}, which is missing; write it with the "
                f"{what}'s save_pretrained({str(model)!r})."
            )


def _kind(model: str | Path) -> str:
    if Path(model).is_dir():
        return "a folder"
    near = beside(model, folders=True)
    return "a folder, or the name of a model" + (f" ({near[2:]})" if near != "." else "")


def _auto_class(config: Any, model: str | Path) -> tuple[str, str]:
    """Task and auto class of the architecture that a config names."""
    from transformers.models.auto import modeling_auto

    architectures = list(getattr(config, "architectures", None) or [])
    for task, auto, table in _AUTO:
        known = getattr(modeling_auto, table).values()
        names = {n for one in known for n in ((one,) if isinstance(one, str) else one)}
        if names & set(architectures[:1]):
            return task, auto
    raise ConfigError(
        f"Expected {model} to be a model for depth estimation or semantic segmentation, got "
        f"{' '.join(architectures) or 'a config without architectures'}; srt compare transformers "
        "takes what AutoModelForDepthEstimation, AutoModelForSemanticSegmentation and "
        "AutoModelForUniversalSegmentation load."
    )


@contextmanager
def _told(kind: type[SRTError], expected: str, advice: str = "") -> Iterator[None]:
    """Turn what transformers raises into an error of ours."""
    try:
        yield
    except SRTError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise kind(
            f"Expected {expected}, got {type(error).__name__}: {text}."
            + (f" If that is what is wrong, {advice}." if advice else "")
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """While active, transformers tells nothing but errors, and warnings are a line each."""
    logger = logging.getLogger("transformers")
    before = logger.level
    try:
        from transformers.utils import logging as own
    except ImportError:
        yield
        return
    bars = own.is_progress_bar_enabled()
    own.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        with overridden(warnings, "formatwarning", lambda text, *_: f"srt: warning: {text}\n"):
            yield
    finally:
        logger.setLevel(before)
        if bars:
            own.enable_progress_bar()
