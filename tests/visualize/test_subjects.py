"""Models to be looked at: what they get and say, against the frameworks' own ways."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import srt_plugins
from srt_plugins import Settings
from srt_plugins.errors import CheckpointError, ConfigError
from srt_plugins.scenes import render
from srt_plugins.visualize.load import load_subject
from tests.evaluation import transformers_models

DEMO = ["mmseg", "examples/demo/vit_scenes.py", "examples/demo/vit_scenes.pth"]
DEPTH = [
    "mmseg",
    "examples/depth/vit_scenes_depth_linear.py",
    "examples/depth/vit_scenes_depth_linear.pth",
]
DETECTION = [
    "detectron2",
    "examples/detection/vitdet_scenes.py",
    "examples/detection/vitdet_scenes.pth",
]


@pytest.fixture(scope="module")
def scene():
    return render(2, 0, (88, 120)).image


@pytest.fixture(scope="module")
def demo():
    return load_subject(DEMO, device="cpu")


def written(path, model):
    torch.save(model.state_dict(), path)
    return str(path)


def test_mmseg_says_what_its_own_inference_says(scene, demo, tmp_path):
    from mmseg.apis import inference_model, init_model

    options = {"test_pipeline": [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]}
    model = init_model(DEMO[1], DEMO[2], device="cpu", cfg_options=options)
    wanted = inference_model(model, scene[..., ::-1].copy()).pred_sem_seg.data[0].numpy()
    found = demo.predict(scene)
    assert found.task == "classes" and found.labels.shape == scene.shape[:2]
    assert np.array_equal(found.labels, wanted)
    assert len(np.unique(wanted)) > 2
    srt_plugins.attach(model, views=4, smooth=3)
    wanted = inference_model(model, scene[..., ::-1].copy()).pred_sem_seg.data[0].numpy()
    ensembled = demo.predict(scene, Settings(views=4, smooth=3))
    assert np.array_equal(ensembled.labels, wanted)
    assert (wanted != found.labels).any()
    # The model is as it was.
    assert np.array_equal(demo.predict(scene).labels, found.labels)


def test_mmseg_inputs_are_what_the_backbone_gets(scene, demo):
    given = demo.inputs(scene)
    seen = []
    handle = demo.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    demo.predict(scene)
    handle.remove()
    assert torch.equal(given.images, seen[0])
    assert given.shown == (0, 0, 88, 120) and given.images.shape[-2:] == (96, 128)
    assert demo.classes[0] == "sky" and demo.palette.shape == (10, 3)


def test_mmseg_pipeline_of_the_config_resizes(scene):
    steps = (
        "[{'type': 'LoadScene'}, {'type': 'Resize', 'scale': (60, 44)}, {'type': 'PackSegInputs'}]"
    )
    subject = load_subject(DEMO, device="cpu", options=[f"test_pipeline={steps}"])
    given = subject.inputs(scene)
    assert given.shown == (0, 0, 44, 60) and given.images.shape[-2:] == (48, 64)
    assert subject.predict(scene).labels.shape == scene.shape[:2]


def test_depth(scene):
    subject = load_subject(DEPTH, device="cpu")
    found = subject.predict(scene)
    assert subject.task == found.task == "depth"
    assert found.depth.shape == scene.shape[:2] and found.depth.min() > 0
    assert np.abs(subject.predict(scene, Settings(views=2)).depth - found.depth).max() > 1e-3


def test_a_config_that_wraps_its_backbone_is_looked_at_plain(scene, demo):
    options = ["model.backbone.type=SRTWrapper", "model.backbone.wraps=VisionTransformer"]
    subject = load_subject(
        DEMO, device="cpu", options=[*options, "model.backbone.srt={'views': 2}"]
    )
    assert subject.settings == Settings(views=2)
    assert type(subject.backbone) is type(demo.backbone)
    assert np.array_equal(subject.predict(scene).labels, demo.predict(scene).labels)


def test_detectron2_says_what_its_own_model_says(tmp_path):
    pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import LazyConfig, instantiate
    from detectron2.data import DatasetMapper

    scene = render(2, 0, (128, 192)).image
    Image.fromarray(scene).save(tmp_path / "scene.png")
    subject = load_subject(DETECTION, device="cpu")
    cfg = LazyConfig.load(DETECTION[1])
    model = instantiate(cfg.model).eval()
    DetectionCheckpointer(model).load(DETECTION[2])
    steps = [instantiate(step) for step in cfg.dataloader.test.mapper.augmentations]
    mapper = DatasetMapper(
        is_train=False, augmentations=steps, image_format=cfg.dataloader.test.mapper.image_format
    )
    record = {"file_name": str(tmp_path / "scene.png"), "height": 128, "width": 192}
    with torch.no_grad():
        wanted = model([mapper(record)])[0]["instances"]
    wanted = wanted[wanted.scores >= 0.5]
    found = subject.predict(scene)
    assert len(wanted) and found.task == "instances"
    assert np.allclose(found.boxes, wanted.pred_boxes.tensor, atol=1e-3)
    assert np.array_equal(found.labels, wanted.pred_classes)
    assert np.array_equal(found.masks, wanted.pred_masks)
    assert subject.classes == ["tree", "sign", "car", "person"]
    other = subject.predict(scene, Settings(views=2))
    assert not np.array_equal(other.scores, found.scores)


@pytest.mark.parametrize(("kind", "task"), [("segformer", "labels"), ("metric", "depth")])
def test_transformers_say_what_the_processor_makes_of_them(kind, task, scene, tmp_path):
    folder = transformers_models.saved(kind, tmp_path)
    subject = load_subject([str(folder)], device="cpu")
    wanted = transformers_models.ByHand(folder, task).predicted(Image.fromarray(scene))
    found = subject.predict(scene)
    got = found.labels if task == "labels" else found.depth
    assert np.array_equal(got, wanted) if task == "labels" else np.allclose(got, wanted, rtol=1e-5)
    given = subject.inputs(scene)
    assert given.shown == (0, 0, *given.images.shape[-2:])


def test_timm_images_are_normalised_and_completed_to_patches(scene, tmp_path):
    made = timm.create_model("test_vit")
    path = written(tmp_path / "vit.pth", made)
    subject = load_subject(["timm/test_vit"], device="cpu", checkpoint=path)
    assert subject.notes == []  # the classifier is not missed
    given = subject.inputs(scene[:85, :117])
    config = timm.data.resolve_model_data_config(made)
    wanted = timm.data.create_transform(
        input_size=(3, 85, 117), mean=config["mean"], std=config["std"], crop_pct=1.0
    )(Image.fromarray(scene[:85, :117]))
    assert given.shown == (0, 0, 85, 117) and given.images.shape == (1, 3, 96, 128)
    assert torch.allclose(given.images[0, :, :85, :117], wanted, atol=1e-5)
    # Partial patches are completed by the border.
    assert torch.equal(
        given.images[..., 85:, :], given.images[..., 84:85, :].expand(-1, -1, 11, -1)
    )
    for name, weight in made.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(subject.model.state_dict()[name], weight)
    assert subject.predict(scene).task is None


class Code:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("kind", ["timm", "mmseg", "detectron2", "transformers"])
def test_no_checkpoint_runs_code(kind, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "code": Code(trace)}, path)
    words, more = [kind, *(DEMO if kind == "mmseg" else DETECTION)[1:2], str(path)], {}
    if kind == "timm":
        words, more = ["timm/test_vit"], {"checkpoint": str(path)}
    elif kind == "detectron2":
        pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    elif kind == "transformers":
        folder = transformers_models.saved("segformer", tmp_path)
        (folder / "model.safetensors").unlink()
        with (folder / "pytorch_model.bin").open("wb") as file:
            pickle.dump({"code": Code(trace)}, file)
        words = [str(folder)]
    with pytest.raises(CheckpointError):
        load_subject(words, device="cpu", **more)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "got nothing"),
        (["timm/vit_tiny_patch16_22"], "'vit_tiny_patch16_224'"),
        (["mmsegg"], "did you mean 'mmseg'"),
        (["mmseg", "config.py"], "CONFIG CHECKPOINT, got 1 word"),
        (["mmseg", "no.py", "no.pth"], "no.py, which does not exist"),
        (["detectron2", "a", "b", "c"], "got 3 words"),
        (["./nothing"], "./nothing"),
        (["/nothing/at/all"], "/nothing/at/all"),
        (["timm/test_vit", "more"], "timm/NAME"),
    ],
)
def test_mistakes_name_what_was_expected(words, told):
    if words[:1] == ["detectron2"]:
        pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    with pytest.raises(ConfigError, match=told.replace(".", "[.]")):
        load_subject(words, device="cpu")


def test_settings_that_do_not_fit_leave_the_model_plain(scene, demo):
    with pytest.raises(srt_plugins.SRTError):
        demo.predict(scene, Settings(layer=99))
    assert not srt_plugins.wrapper.wrapped(demo.model)
    assert isinstance(demo.model, nn.Module)
