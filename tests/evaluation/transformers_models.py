"""Tiny models of transformers with image processors and labelled images, and rows by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

from srt_plugins.core.views import resolve
from srt_plugins.scenes import render
from tests.transformers import models, tiny

from .test_depth import slow_errors

# Of the folder; two neighbours of one size, then others.
SIZES = ((40, 60), (40, 60), (52, 44), (45, 61))
DEPTH_SCALE, FAR = 256.0, 80.0
_CLASSIFIERS = ("class_predictor", "class_embed")
CLASSES = 5


def segformer(classes: int = CLASSES) -> torch.nn.Module:
    sizes = dict(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 2, 1], decoder_hidden_size=8)
    made = tiny.config("Segformer", num_attention_heads=[1, 1, 2, 2], num_labels=classes, **sizes)
    return models._model("SegformerForSemanticSegmentation", made)


def metric_depth() -> torch.nn.Module:
    return models.depth_anything(depth_estimation_type="metric", max_depth=60)


@torch.no_grad()
def of_several_classes(model: Any, **inputs: Any) -> Any:
    """The model with queries that tell classes apart: at random they are all of the same."""
    for name, weight in model.named_parameters():
        if ".queries_" in name:
            weight.mul_(20)
    seen = model(pixel_values=tiny.images((64, 96)), **inputs)
    predictor = next(m for n, m in model.named_modules() if n.endswith(_CLASSIFIERS))
    predictor.bias.sub_(seen.class_queries_logits[0].mean(0))
    for part in (predictor.weight, predictor.bias):
        part.mul_(5 / seen.class_queries_logits.std(1).mean())
    return model


def _dpt() -> Any:
    size = {"height": 56, "width": 84}
    return transformers.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14)


def _sized(name: str, height: int, width: int, **keywords: Any) -> Callable[[], Any]:
    cls = getattr(transformers, f"{name}ImageProcessor")
    return lambda: cls(size={"height": height, "width": width}, **keywords)


# Model and image processor.
KINDS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "metric": (metric_depth, _dpt),
    "relative": (models.depth_anything, _dpt),
    "zoedepth": (models.zoedepth, _sized("ZoeDepth", 48, 64, ensure_multiple_of=8)),
    "dpt": (models.dpt, _sized("DPT", 64, 64)),
    "hybrid": (models.dpt_hybrid, _sized("DPT", 64, 64)),
    "segformer": (segformer, _sized("Segformer", 64, 96)),
    "scenes": (lambda: segformer(10), _sized("Segformer", 64, 96)),
    "beit": (models.beit, _sized("Beit", 48, 48, do_center_crop=False, do_reduce_labels=True)),
    "mask2former": (
        lambda: of_several_classes(models.mask2former()),
        _sized("Mask2Former", 64, 96),
    ),
    "maskformer": (lambda: of_several_classes(models.maskformer()), _sized("MaskFormer", 64, 96)),
}


def saved(kind: str, root: Path) -> Path:
    """A model and its image processor as ``save_pretrained`` writes them."""
    make, process = KINDS[kind]
    folder = root / kind
    if not folder.exists():
        make().save_pretrained(folder)
        process().save_pretrained(folder)
    return folder


def saved_oneformer(root: Path) -> Path:
    """A model that is told its task in words, with its processor."""
    folder = root / "oneformer"
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary, merges = root / "vocab.json", root / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    processor = transformers.OneFormerProcessor(
        transformers.OneFormerImageProcessor(size={"height": 64, "width": 96}, num_text=1),
        transformers.CLIPTokenizer(str(vocabulary), str(merges)),
        max_seq_length=8,
        task_seq_length=8,
    )
    model = models.oneformer()
    of_several_classes(model, task_inputs=torch.ones(1, 8, dtype=torch.long))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_folder(root: Path) -> Path:
    """Scenes of several sizes with depth (PNG and NumPy) and labels, some pixels unknown."""
    for name in ("images", "depth", "labels"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        scene = render(7, i, size)
        ending = "jpg" if i == 1 else "png"
        Image.fromarray(scene.image).save(root / "images" / f"{i}.{ending}")
        if i % 2:
            np.save(root / "depth" / f"{i}.npy", scene.depth)
        else:
            stored = np.clip(np.rint(scene.depth * DEPTH_SCALE), 0, 2**16 - 1).astype(np.uint16)
            Image.fromarray(stored).save(root / "depth" / f"{i}.png")
        labels = (scene.labels % CLASSES).astype(np.uint8)
        labels[rng.random(size) < 0.1] = 255
        Image.fromarray(labels).save(root / "labels" / f"{i}.png")
    return root


def read_folder(root: Path, task: str) -> list[tuple[Any, np.ndarray]]:
    """Images and truth of that folder."""
    found = []
    for i in range(len(SIZES)):
        image = Image.open(root / "images" / f"{i}.{'jpg' if i == 1 else 'png'}").convert("RGB")
        if task == "labels":
            truth = np.array(Image.open(root / "labels" / f"{i}.png"))
        elif i % 2:
            truth = np.load(root / "depth" / f"{i}.npy")
        else:
            truth = np.array(Image.open(root / "depth" / f"{i}.png")) / DEPTH_SCALE
        found.append((image, truth))
    return found


class ByHand:
    """A saved model, run image by image in the ways of the rows."""

    def __init__(self, folder: Path, task: str) -> None:
        auto = {
            "depth": transformers.AutoModelForDepthEstimation,
            "labels": transformers.AutoModelForSemanticSegmentation,
            "masks": transformers.AutoModelForUniversalSegmentation,
        }[task]
        self.model = auto.from_pretrained(folder).eval()
        self.processor = transformers.AutoImageProcessor.from_pretrained(folder)
        self.task = task
        # Inputs beside pixels, as those of a task in words.
        self.others: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def predicted(self, image: Any, way: Callable[[torch.Tensor], torch.Tensor] | None = None):
        """The prediction for an image; ``way`` makes dense maps of pixels, None = the model."""
        inputs = {**self.processor(images=[image], return_tensors="pt"), **self.others}
        size = (image.height, image.width)
        if way is None:
            outputs = self.model(**inputs)
        else:
            maps = way(inputs["pixel_values"])
            if self.task == "masks":
                scores = F.interpolate(maps, size, mode="bilinear", align_corners=False)
                return scores[0].argmax(0).numpy()
            outputs = type(self.model(**inputs))(
                **({"logits": maps} if self.task == "labels" else {"predicted_depth": maps[:, 0]})
            )
        if self.task != "depth":
            post = self.processor.post_process_semantic_segmentation
            return post(outputs, target_sizes=[size])[0].numpy()
        post, sizes = self.processor.post_process_depth_estimation, {"target_sizes": [size]}
        if type(self.processor).__name__.startswith("Zoe"):
            sizes["source_sizes"] = [size]
        return post(outputs, **sizes)[0]["predicted_depth"].numpy()

    def maps(self, pixels: torch.Tensor) -> torch.Tensor:
        """Dense maps of the model in the size of its input."""
        outputs = self.model(pixel_values=pixels, **self.others)
        if self.task == "depth":
            maps = outputs.predicted_depth[:, None]
        elif self.task == "labels":
            maps = outputs.logits
        else:
            masks = outputs.masks_queries_logits
            if type(self.processor).__name__.startswith("Mask2Former"):
                masks = F.interpolate(masks, (384, 384), mode="bilinear", align_corners=False)
            chances = outputs.class_queries_logits.softmax(-1)[0, :, :-1]
            maps = sum(
                chances[q][:, None, None] * masks[0, q].sigmoid() for q in range(len(chances))
            )[None]
        return F.interpolate(maps, pixels.shape[-2:], mode="bilinear", align_corners=False)

    def ensemble(self, patch: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """The mean of all views' maps, each put back in place."""
        views = resolve(None, None, patch).translations

        def way(pixels: torch.Tensor) -> torch.Tensor:
            height, width = pixels.shape[-2:]
            total, cover = 0, torch.zeros(height, width)
            for dy, dx in views:
                m = max(abs(dy), abs(dx))
                wide = F.pad(pixels, (m, m, m, m), mode="replicate")
                view = wide[..., m - dy : m - dy + height, m - dx : m - dx + width]
                # Back by padding with zeros, which count for nothing.
                back = F.pad(self.maps(view), (m, m, m, m))
                seen = F.pad(torch.ones(height, width), (m, m, m, m))
                rows, columns = slice(m + dy, m + dy + height), slice(m + dx, m + dx + width)
                total = total + back[..., rows, columns]
                cover = cover + seen[rows, columns]
            return total / cover

        return way

    def flipped(self, pixels: torch.Tensor) -> torch.Tensor:
        """The mean of the image's maps and its mirror image's."""
        return (self.maps(pixels) + self.maps(pixels.flip(-1)).flip(-1)) / 2

    def larger(self, scale: float, patch: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Maps of the enlarged input."""

        def way(pixels: torch.Tensor) -> torch.Tensor:
            sides = [max(s, round(s * scale / patch) * patch) for s in pixels.shape[-2:]]
            large = F.interpolate(pixels, sides, mode="bilinear", align_corners=False)
            return F.interpolate(self.maps(large), pixels.shape[-2:], mode="bilinear")

        return way


def depth_figures(predictions, truths, high: float = FAR) -> list[float]:
    """The seven errors, means over images, pixel by pixel."""
    errors = [
        slow_errors(p, t, high=high, crop=False) for p, t in zip(predictions, truths, strict=True)
    ]
    return [math.fsum(column) / len(errors) for column in zip(*errors)]


def mean_iou(predictions, truths, classes: int = CLASSES) -> float:
    """mIoU in percent, pixel by pixel."""
    hits, either = [0] * classes, [0] * classes
    for prediction, truth in zip(predictions, truths, strict=True):
        for p, t in zip(prediction.flatten().tolist(), truth.flatten().tolist()):
            if t == 255:
                continue
            either[t] += 1
            if p == t:
                hits[t] += 1
            else:
                either[p] += 1
    return 100 * sum(h / e for h, e in zip(hits, either) if e) / sum(e > 0 for e in either)
