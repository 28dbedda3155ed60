"""Pipelines of transformers, loaded from a folder as users load them, with SRT attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
import pytest

pytest.importorskip(
    "transformers", reason="needs transformers (pip install srt-plugins[transformers])"
)

import torch
import transformers
from PIL import Image

from srt_plugins import attach, detach, srt_enabled
from tests.transformers import models

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SIZES = [(518, 518), (480, 640), (61, 77)]
MIXED = [(100, 80), (61, 77), (90, 90)]


@dataclass(frozen=True)
class Case:
    """A model, its image processor, and whether that makes one size of all images."""

    model: Callable[[], Any]
    processor: Callable[[], Any]
    task: str
    auto: str
    one_size: bool = True


def processor(name, *size, **keywords):
    size = dict(height=size[0], width=size[1]) if size else None
    return lambda: getattr(transformers, f"{name}ImageProcessor")(
        **({"size": size} if size else {}), **keywords
    )


_DEPTH = ("depth-estimation", "AutoModelForDepthEstimation")
_SEMANTIC = ("image-segmentation", "AutoModelForSemanticSegmentation")
_UNIVERSAL = ("image-segmentation", "AutoModelForUniversalSegmentation")
_EDGES = dict(size=dict(shortest_edge=64, longest_edge=128))
PIPELINES = {
    "depth-anything": Case(
        models.depth_anything,
        processor("DPT", 518, 518, ensure_multiple_of=14, keep_aspect_ratio=True),
        *_DEPTH,
        one_size=False,
    ),
    "dpt": Case(models.dpt, processor("DPT", 64, 64), *_DEPTH),
    "zoedepth": Case(models.zoedepth, processor("ZoeDepth", 48, 64), *_DEPTH, one_size=False),
    "glpn": Case(models.glpn, processor("GLPN", size_divisor=32), *_DEPTH, one_size=False),
    "segformer": Case(models.segformer, processor("Segformer", 64, 64), *_SEMANTIC),
    "upernet": Case(models.upernet, processor("Segformer", 61, 77), *_SEMANTIC),
    "beit": Case(models.beit, processor("Beit", 48, 48, do_center_crop=False), *_SEMANTIC),
    "mask2former": Case(
        models.mask2former, processor("Mask2Former", **_EDGES), *_UNIVERSAL, one_size=False
    ),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Every pipeline from a folder, made once; tests give them back as they were."""
    made = {}

    def load(name):
        if name not in made:
            case, folder = PIPELINES[name], tmp_path_factory.mktemp(name)
            case.model().save_pretrained(folder)
            case.processor().save_pretrained(folder)
            model = getattr(transformers, case.auto).from_pretrained(folder)
            images = transformers.AutoImageProcessor.from_pretrained(folder)
            made[name] = transformers.pipeline(
                case.task, model=model, image_processor=images, device="cpu"
            )
        return made[name]

    return load


@pytest.fixture(params=PIPELINES)
def name(request):
    return request.param


@pytest.fixture
def pipe(name, loaded):
    yield loaded(name)
    detach(loaded(name))


def picture(size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def options(pipe):
    # With random weights no mask is sure enough for another task.
    universal = "Mask2Former" in type(pipe.model).__name__
    return dict(subtask="semantic") if universal else {}


def values(result):
    """What a pipeline says of one image, as arrays."""
    if isinstance(result, dict):
        return {"depth": np.asarray(result["depth"]), "values": result["predicted_depth"].numpy()}
    return {part["label"]: np.asarray(part["mask"]) for part in result}


def equal(a, b):
    a, b = values(a), values(b)
    return list(a) == list(b) and all(np.array_equal(a[key], b[key]) for key in a)


def by_hand(pipe, image):
    """The steps of a pipeline, one after the other."""
    inputs = pipe.image_processor(images=[image], return_tensors="pt")
    with torch.no_grad():
        output = pipe.model(**{k: v for k, v in inputs.items() if torch.is_tensor(v)})
    size = [image.size[::-1]]
    if pipe.task == "depth-estimation":
        (found,) = pipe.image_processor.post_process_depth_estimation(output, size)
        return found["predicted_depth"]
    (found,) = pipe.image_processor.post_process_semantic_segmentation(output, target_sizes=size)
    return found


def test_results_are_those_of_the_steps_in_the_size_of_the_image(name, pipe):
    changed = 0
    for size in SIZES:
        image, ask = picture(size), options(pipe)
        plain = pipe(image, **ask)
        assert attach(pipe, views=2) is pipe
        found, expected = pipe(image, **ask), by_hand(pipe, image)
        detach(pipe)
        assert equal(pipe(image, **ask), plain)
        if pipe.task == "depth-estimation":
            assert list(found) == ["predicted_depth", "depth"]
            assert isinstance(found["depth"], Image.Image) and found["depth"].size == size[::-1]
            assert found["predicted_depth"].shape == size
            torch.testing.assert_close(found["predicted_depth"], expected)
        else:
            assert [part["label"] for part in found] == [f"LABEL_{i}" for i in expected.unique()]
            for part in found:
                mask = expected == int(part["label"].rpartition("_")[2])
                assert part["mask"].size == size[::-1]
                assert np.array_equal(np.asarray(part["mask"]) > 0, mask.numpy())
        changed += not equal(found, plain)
    assert changed, "the ensemble changed nothing"


def test_lists_of_images_of_many_sizes(name, pipe):
    pictures = [picture(size, seed=i) for i, size in enumerate(MIXED)]
    attach(pipe, views=2)
    single = [pipe(image, **options(pipe)) for image in pictures]
    listed = pipe(pictures, **options(pipe))
    assert len(listed) == len(single) and all(map(equal, listed, single))
    if PIPELINES[name].one_size:
        batched = pipe(pictures, batch_size=2, **options(pipe))
        for a, b in zip(map(values, batched), map(values, single)):
            assert list(a) == list(b)
            for key in a:
                # Sums in another order; a pixel on the edge of two classes may change sides.
                off = np.abs(a[key].astype(float) - b[key]) > 1e-3 * np.abs(b[key]).max()
                assert off.mean() < (0 if key == "values" else 0.01) + 1e-9


def test_only_here(loaded):
    pipe, image = loaded("depth-anything"), picture((61, 77))
    plain = pipe(image)
    with srt_enabled(pipe, views=2) as inside:
        assert inside is pipe
        assert not equal(pipe(image), plain)
    assert equal(pipe(image), plain)


def test_a_pipeline_by_the_path_of_a_folder(tmp_path):
    models.depth_anything().save_pretrained(tmp_path)
    processor("DPT", 70, 70, ensure_multiple_of=14)().save_pretrained(tmp_path)
    pipe = transformers.pipeline("depth-estimation", model=str(tmp_path), device="cpu")
    image = picture((61, 77))
    plain = pipe(image)
    attach(pipe, level=2, views=3, layer=2)
    found = pipe(image)
    assert found["depth"].size == image.size and not equal(found, plain)
