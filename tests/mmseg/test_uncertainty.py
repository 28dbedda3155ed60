"""Dispersion in data samples, against what is made of the backbone's maps by hand."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.models import SegTTAModel
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample

from srt_plugins import ConfigError, attach, detach, dispersion, srt_enabled
from srt_plugins.core.views import resolve
from srt_plugins.mmseg import with_dispersion
from srt_plugins.mmseg.uncertainty import dispersion_in_samples
from tests.mmseg.runs import runner
from tests.mmseg.tiny import FIXED, PATCH, build, checkpoint, flat, images, nested, segmentor, vit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SRT = dict(level=2, views=[(0, 0), (2, -1), (-1, 1)])
SLIDE = dict(mode="slide", crop_size=FIXED, stride=(16, 20))
SIZE, PADDED, ORIGINAL = (45, 70), (48, 72), (61, 50)


def padding(*args, **keywords):
    """Config of the tiny segmentor, whose images are completed to whole patches with zeros."""
    config = segmentor(*args, **keywords)
    config["data_preprocessor"]["test_cfg"] = dict(size_divisor=PATCH)
    return config


def picture(seed=1):
    return (images(SIZE, seed=seed)[0] * 60 + 120).clamp(0, 255)


def seen(seed=1):
    """What the backbone gets of :func:`picture`: RGB, normalised, padded with zeros."""
    image = (picture(seed)[[2, 1, 0]] - 120) / 60
    return F.pad(image[None], (0, PADDED[1] - SIZE[1], 0, PADDED[0] - SIZE[0]))


def predicted(model, flip=None, count=1):
    """``test_step`` on pictures that were made from others of the original size."""
    meta = dict(ori_shape=ORIGINAL, img_shape=SIZE, pad_shape=SIZE)
    if flip:
        meta.update(flip=True, flip_direction=flip)
    samples = [SegDataSample(metainfo=dict(meta)) for _ in range(count)]
    inputs = [picture(seed) for seed in range(1, count + 1)]
    with torch.no_grad():
        return model.test_step({"inputs": inputs, "data_samples": samples})


@torch.no_grad()
def maps_of(model, image, **settings):
    """The dispersion of every output of the backbone."""
    with srt_enabled(model.backbone, dispersion=True, **(settings or SRT)):
        model.backbone(image)
        return dispersion(model.backbone)


def resized(maps, size=ORIGINAL):
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def placed(maps, flip=None):
    """Maps of the padded image as logits are put into a sample, ``(1, H, W)``."""
    image = maps[..., : SIZE[0], : SIZE[1]]
    if flip:
        image = image.flip(-1 if flip == "horizontal" else -2)
    return resized(image)[0]


@pytest.mark.parametrize("flip", [None, "horizontal", "vertical"])
def test_whole_images_as_their_logits(flip):
    model = with_dispersion(build(padding()), **SRT)
    (sample,) = predicted(model, flip)
    found = sample.srt_dispersion.data
    assert found.shape == (1, *sample.seg_logits.shape) == (1, *ORIGINAL)
    assert found.dtype == torch.float32
    (last,) = maps_of(detach(model), seen())
    torch.testing.assert_close(found, placed(resized(last, PADDED), flip))


def test_batches_and_other_outputs_are_as_before():
    model = attach(build(padding()), **SRT)
    expected = predicted(model, count=2)
    found = predicted(with_dispersion(model), count=2)
    for a, b in zip(expected, found):
        assert "srt_dispersion" not in a
        torch.testing.assert_close(a.seg_logits.data, b.seg_logits.data, rtol=1e-4, atol=1e-5)
    detach(model)
    for seed, sample in enumerate(found, 1):
        (last,) = maps_of(model, seen(seed))
        torch.testing.assert_close(sample.srt_dispersion.data, placed(resized(last, PADDED)))


def test_windows_are_averaged_where_they_overlap():
    model = with_dispersion(build(padding(test_cfg=SLIDE)), **SRT)
    (sample,) = predicted(model)
    detach(model)
    total, count = torch.zeros(1, 1, *PADDED), torch.zeros(PADDED)
    for top in (0, 16, 24):
        for left in (0, 20, 40):
            window = ..., slice(top, top + FIXED[0]), slice(left, left + FIXED[1])
            (last,) = maps_of(model, seen()[window])
            total[window] += resized(last, FIXED)
            count[window[1:]] += 1
    assert count.min() >= 1 and count.max() >= 4
    torch.testing.assert_close(sample.srt_dispersion.data, placed(total / count))


HEADS = {
    "last": (dict(in_index=-1), (1,)),
    "first": (dict(in_index=0), (0,)),
    "both": (
        dict(in_index=(0, 1), input_transform="multiple_select", type="SegformerHead"),
        (0, 1),
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_the_maps_that_the_head_reads(head):
    keywords, chosen = HEADS[head]
    config = padding(vit(out_indices=(0, 2)))
    if head == "both":
        config["decode_head"] = dict(
            in_channels=[16, 16], channels=16, num_classes=10, norm_cfg=dict(type="BN"), **keywords
        )
        config["decode_head"].pop("input_transform")
    else:
        config["decode_head"].update(keywords)
    model = with_dispersion(build(config), **SRT)
    (sample,) = predicted(model)
    every = [resized(one, PADDED) for one in maps_of(detach(model), seen())]
    logs = [every[i].double().log() for i in chosen]
    expected = placed((sum(logs) / len(logs)).exp().float())
    torch.testing.assert_close(sample.srt_dispersion.data, expected, rtol=1e-4, atol=1e-6)


def state(model):
    own = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), set(vars(m))) for m in model.modules()
    ]
    return type(model), list(model.state_dict()), own


def test_nothing_is_left_and_copies_work():
    model = build(padding())
    before = state(model)
    with_dispersion(model, **SRT)
    assert type(model) is before[0] and list(model.state_dict()) == before[1]
    (expected,) = predicted(model)
    assert vars(model).keys() == before[2][0][2]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        (found,) = predicted(other)
        assert torch.equal(found.srt_dispersion.data, expected.srt_dispersion.data)
        detach(other)
        (plain,) = predicted(other)
        assert "srt_dispersion" not in plain and state(other) == before
    detach(model)
    assert state(model) == before
    with srt_enabled(model, dispersion=True, **SRT):
        assert "srt_dispersion" not in predicted(model)[0]
        with dispersion_in_samples(model):
            assert "srt_dispersion" in predicted(model)[0]
    assert state(model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_that_fails_leaves_nothing(error):
    model = build(padding())
    before = state(model)
    with_dispersion(model, **SRT)
    (expected,) = predicted(model)

    def fail(*_):
        raise error("stop")

    handle = model.decode_head.conv_seg.register_forward_hook(fail)
    with pytest.raises(error):
        predicted(model)
    handle.remove()
    (found,) = predicted(model)
    assert torch.equal(found.srt_dispersion.data, expected.srt_dispersion.data)
    handle = model.decode_head.conv_seg.register_forward_hook(fail)
    with pytest.raises(error):
        predicted(model)
    handle.remove()
    detach(model)
    assert state(model) == before


def test_only_where_views_run():
    model = with_dispersion(build(padding()), **SRT)
    with srt_enabled(model, enabled=False):
        assert "srt_dispersion" not in predicted(model)[0]
    with srt_enabled(model, dispersion=False):
        assert "srt_dispersion" not in predicted(model)[0]
    with srt_enabled(model, level=0, views=None):
        assert "srt_dispersion" not in predicted(model)[0]
    with torch.no_grad():
        assert model(seen(), mode="tensor").shape == (1, 10, 6, 9)
    assert "srt_dispersion" in predicted(model)[0]


FORMS = {"nested": nested, "flat": flat}


def config(backbone, **keywords):
    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    return Config(
        dict(
            default_scope="mmseg",
            custom_imports=dict(imports=["srt_plugins.mmseg"]),
            model=segmentor(backbone),
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
            **keywords,
        )
    )


@pytest.fixture
def weights(tmp_path):
    return checkpoint(tmp_path / "weights.pth", seed=3)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_wrapped_configs_need_nothing_else(tmp_path, weights, form):
    image = picture().permute(1, 2, 0).byte().numpy()
    plain = init_model(config(vit()), weights, device="cpu")
    live = with_dispersion(plain, **SRT)
    expected = inference_model(live, image).srt_dispersion.data
    visualizer = dict(type="SegLocalVisualizer", name=f"uncertainty-{form.__name__}")
    wrapped = config(form(dispersion=True, **SRT), visualizer=visualizer)
    model = init_model(wrapped, weights, device="cpu")
    assert torch.equal(inference_model(model, image).srt_dispersion.data, expected)
    wrapped.dump(tmp_path / "config.py")
    inferencer = MMSegInferencer(
        str(tmp_path / "config.py"), weights, classes=["c"] * 10, palette=[[0] * 3] * 10
    )
    found = inferencer(image, return_datasamples=True)
    assert torch.equal(found.srt_dispersion.data.cpu(), expected)
    detach(model)
    assert state(model) == state(init_model(config(vit()), weights, device="cpu"))


class Recorder(Hook):
    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.kept = [*getattr(runner, "kept", []), *outputs]


@pytest.mark.parametrize("backbone", [None, flat(level=1, dispersion=True)], ids=["plain", "flat"])
def test_hook_hands_it_over_in_the_loop_only(tmp_path, weights, backbone):
    hook = dict(type="SRTHook", dispersion=True, **SRT)
    run = runner(tmp_path, model=segmentor(backbone), hooks=[hook], load_from=weights)
    before = state(run.model)
    run.register_hook(Recorder())
    run.test()
    assert state(run.model) == before
    model = detach(run.model).eval()
    assert len(run.kept) == 2
    for i, sample in enumerate(run.kept):
        data = run.test_dataloader.dataset[i]
        image = (data["inputs"][[2, 1, 0]].float() - 120) / 60
        (last,) = maps_of(model, image[None])
        expected = resized(last, image.shape[-2:])[0]
        torch.testing.assert_close(sample.srt_dispersion.data, expected)


def test_inside_test_time_augmentation():
    model = build(padding())
    container = SegTTAModel(module=model)
    with_dispersion(container, **SRT)
    metas = [dict(ori_shape=ORIGINAL, img_shape=SIZE, pad_shape=SIZE, img_path="x")] * 2
    metas[1] = dict(metas[1], flip=True, flip_direction="horizontal")
    data = {
        "inputs": [[picture()], [picture()]],
        "data_samples": [[SegDataSample(metainfo=dict(m))] for m in metas],
    }
    with torch.no_grad():
        (sample,) = container.test_step(data)
    assert "srt_dispersion" in sample and sample.srt_dispersion.shape == ORIGINAL


def depth_estimator(**test_cfg):
    """A depth estimator with a linear head."""
    config = padding(test_cfg=dict(mode="whole", **test_cfg))
    config["type"] = "DepthEstimator"
    config["decode_head"].update(num_classes=1, threshold=0.5)
    config["decode_head"]["loss_decode"] = dict(type="SiLogLoss")
    return build(config)


def test_deviation_of_depth_over_views():
    model = with_dispersion(depth_estimator(), depth_std=True, **SRT)
    (sample,) = predicted(model)
    (last,) = maps_of(detach(model), seen())
    torch.testing.assert_close(sample.srt_dispersion.data, placed(resized(last, PADDED)))
    h, w = PADDED
    each = np.full((3, h, w), np.nan)
    with torch.no_grad():
        for out, (dy, dx) in zip(each, resolve(SRT["views"], None, 8).translations):
            rows, columns = ((np.arange(n) - d).clip(0, n - 1) for n, d in ((h, dy), (w, dx)))
            view = seen()[:, :, rows][..., columns]
            depth = resized(model.decode_head(model.backbone(view)), PADDED)[0, 0].numpy()
            for y in range(h):
                for x in range(w):
                    if 0 <= y + dy < h and 0 <= x + dx < w:
                        out[y, x] = depth[y + dy, x + dx]
    expected = torch.from_numpy(np.nanstd(each, 0)).float()[None, None]
    found = sample.srt_depth_std
    assert found.shape == sample.pred_depth_map.shape
    torch.testing.assert_close(found.data, placed(expected), rtol=1e-3, atol=1e-5)
    assert "srt_depth_std" not in predicted(model)[0]


def test_visualizer_puts_heat_maps_beside_the_prediction(tmp_path):
    drawer = VISUALIZERS.build(
        dict(
            type="SRTLocalVisualizer",
            name="uncertainty",
            save_dir=str(tmp_path),
            vis_backends=[dict(type="LocalVisBackend")],
        )
    )
    drawer.dataset_meta = dict(classes=["c"] * 10, palette=[[20 * i] * 3 for i in range(10)])
    model = with_dispersion(build(padding()), **SRT)
    (sample,) = predicted(model)
    image = np.full((*ORIGINAL, 3), 128, dtype=np.uint8)
    drawer.add_datasample("one", image, sample, draw_gt=False, step=3)
    drawn = drawer.get_image()
    assert drawn.shape == (ORIGINAL[0], 2 * ORIGINAL[1], 3)
    assert [p.name for p in tmp_path.rglob("*.png")] == ["one_3.png"]
    heat = drawn[:, ORIGINAL[1] :].astype(float)
    spread = sample.srt_dispersion.data[0].numpy()
    assert np.corrcoef((heat[..., 0] - heat[..., 2]).ravel(), spread.ravel())[0, 1] > 0.8
    detach(model)
    (plain,) = predicted(model)
    drawer.add_datasample("two", image, plain, draw_gt=False, out_file=str(tmp_path / "two.png"))
    assert drawer.get_image().shape == image.shape and (tmp_path / "two.png").exists()
    drawer.add_datasample("none", image, None)  # nothing to draw


def test_mistakes(tmp_path):
    model = build(padding())
    before = state(model)
    with pytest.raises(ConfigError, match="'levle'"):
        with_dispersion(model, levle=1)
    with pytest.raises(ConfigError, match="DepthEstimator with depth_std=True, got EncoderDecoder"):
        with_dispersion(model, depth_std=True)
    with pytest.raises(
        ConfigError, match="segmentor or depth estimator of MMSegmentation, got Vis"
    ):
        with_dispersion(model.backbone)
    assert state(model) == before
    from srt_plugins.mmseg import SRTHook

    with pytest.raises(ConfigError, match="dispersion=True with depth_std=True"):
        SRTHook(depth_std=True)
    run = runner(tmp_path, hooks=[dict(type="SRTHook", dispersion=True, depth_std=True)])
    with pytest.raises(ConfigError, match="DepthEstimator with depth_std=True"):
        run.test()
