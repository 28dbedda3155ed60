"""What every backbone of Detectron2 must keep to once it is wrapped."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")

import torch
from detectron2.modeling import build_model
from detectron2.modeling.backbone import Backbone
from srt_plugins.adapters import describe, find_backbone

from srt_plugins import AdapterError, ConfigError, SRTWrapper, attach, detach
from tests import contracts, reference
from tests.contracts import VIEWS, close, layer_by_hand, run, same, view_inputs
from tests.detectron2.backbones import BACKBONES, EVEN, build, images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(params=BACKBONES)
def case(request):
    return BACKBONES[request.param]


@pytest.fixture
def backbone(case):
    return build(case)


with_sizes = partial(contracts.with_sizes, BACKBONES)
with_cases = partial(contracts.with_cases, BACKBONES)


@with_sizes()
def test_level_zero_equals_the_unwrapped_backbone_to_the_bit(name, size):
    backbone = build(BACKBONES[name])
    before = run(backbone, images(size))
    assert same(run(SRTWrapper(backbone, level=0), images(size)), before)
    assert same(run(SRTWrapper(backbone, views=[(0, 0)]), images(size)), before)


@with_sizes()
def test_ensemble_equals_the_oracle(name, size):
    case = BACKBONES[name]
    backbone, image = build(case), images(size)
    plain = run(backbone, image)
    every = [run(backbone, view) for view in view_inputs(image)]
    found = run(SRTWrapper(backbone, views=VIEWS), image)
    assert list(found) == list(plain) == list(case.strides)
    for key, stride in case.strides.items():
        parts = [output[key][0].double().numpy() for output in every]
        assert found[key].shape == plain[key].shape
        close(found[key], reference.aggregate(parts, VIEWS, stride)["mean"])
        assert not torch.equal(found[key], plain[key])


@with_cases(lambda case: case.layout != "NCHW")
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_batches_and_chunks_of_views_equal_single_ones(case, statistic):
    backbone, batch = build(case), images(EVEN, batch=2)
    SRTWrapper(backbone, views=VIEWS, statistic=statistic, view_batch=2)
    both = run(backbone, batch)
    SRTWrapper(backbone, views=VIEWS, statistic=statistic, view_batch=1)
    for i in range(2):
        for key, found in run(backbone, batch[i : i + 1]).items():
            torch.testing.assert_close(found[0], both[key][i], rtol=1e-4, atol=1e-5)


def test_declared_facts_are_the_actual_ones(case, backbone):
    adapter = describe(backbone)
    assert adapter.patch == case.patch and adapter.multiple is None
    assert dict(zip(adapter.names, adapter.strides)) == case.strides
    assert (len(adapter.blocks), adapter.taps) == (case.blocks, case.taps)
    shapes = backbone.output_shape()
    for key, tensor in run(backbone, images(EVEN)).items():
        assert shapes[key].channels == tensor.shape[1]
        assert shapes[key].stride == case.strides[key]
        assert tensor.shape[-2:] == tuple(math.ceil(n / case.strides[key]) for n in EVEN)


@with_cases(lambda case: case.blocks)
def test_blocks_run_in_the_declared_order_with_the_declared_tokens(case, backbone):
    adapter = describe(backbone)
    ran = []
    for path in adapter.blocks:

        def note(module, args, output, path=path):
            ran.append((path, output.shape))

        backbone.get_submodule(path).register_forward_hook(note)
    run(backbone, images(EVEN))
    assert adapter.block_layout == case.layout
    assert [path for path, _ in ran] == list(adapter.blocks)
    for (_, shape), stride in zip(ran, adapter.block_strides):
        h, w = EVEN[0] // stride, EVEN[1] // stride
        expected = {"NLC": (h * w, shape[2]), "NHWC": (h, w, shape[3]) if len(shape) > 3 else ()}
        assert tuple(shape[1:]) == expected.get(case.layout, (shape[1], h, w))


@with_sizes(lambda case: case.blocks)
def test_layer_equals_an_independent_computation(name, size):
    case = BACKBONES[name]
    backbone, image = build(case), images(size)
    adapter = describe(backbone)
    index = adapter.blocks.index(case.middle)
    expected = layer_by_hand(adapter, backbone, image, index, case.floors)
    plain = run(backbone, image)
    found = run(SRTWrapper(backbone, views=VIEWS, layer=case.middle), image)
    assert list(found) == list(expected)
    for key in found:
        assert found[key].shape == expected[key].shape
        assert (found[key] - expected[key]).abs().max() <= 1e-4 * expected[key].abs().max()
    assert not torch.equal(found[key], plain[key])


@with_cases(lambda case: case.target)
def test_a_part_below_a_pyramid_is_ensembled_and_the_pyramid_runs_once(case):
    backbone, by_hand = build(case), build(case)
    attach(backbone, target=case.target, views=VIEWS)
    inner = by_hand.get_submodule(case.target)
    features = run(SRTWrapper(copy.deepcopy(inner), views=VIEWS), images(EVEN))
    inner.forward = lambda x: features
    assert same(run(backbone, images(EVEN)), run(by_hand, images(EVEN)))
    calls = []
    last = [m for n, m in backbone.named_modules() if not n.startswith(case.target) and n][-1]
    last.register_forward_hook(lambda *_: calls.append(1))
    run(backbone, images(EVEN))
    assert len(calls) == 1


def test_the_backbone_contract_stays(case, backbone):
    cls, before = type(backbone), run(backbone, images(EVEN))
    keys, names = list(backbone.state_dict()), [n for n, _ in backbone.named_parameters()]
    shapes, attributes = backbone.output_shape(), set(vars(backbone))
    constraints = backbone.padding_constraints
    # Reading it fails in Detectron2's own Swin.
    divisibility = getattr(backbone, "size_divisibility", None)
    wrapped = SRTWrapper(backbone, views=2)
    assert wrapped is backbone and isinstance(wrapped, (Backbone, cls)) and type(wrapped) is not cls
    assert list(wrapped.state_dict()) == keys
    assert [n for n, _ in wrapped.named_parameters()] == names
    assert wrapped.output_shape() == shapes
    assert wrapped.padding_constraints == constraints
    assert getattr(wrapped, "size_divisibility", None) == divisibility
    assert not same(run(wrapped, images(EVEN)), before)
    detach(wrapped)
    assert type(backbone) is cls and set(vars(backbone)) == attributes
    assert same(run(backbone, images(EVEN)), before)


def test_copies_and_pickles_are_wrapped_too(case, backbone):
    SRTWrapper(backbone, views=2)
    expected = run(backbone, images(EVEN))
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert type(other) is type(backbone) and other is not backbone
        assert same(run(other, images(EVEN)), expected)


def test_training_mode_passes_through_to_the_bit(case, backbone):
    plain, image = copy.deepcopy(backbone), images(EVEN, batch=2)
    SRTWrapper(backbone, views=2)
    plain.train()
    backbone.train()
    torch.manual_seed(0)  # drop path
    expected = plain(image)
    torch.manual_seed(0)
    assert same(backbone(image), expected)


def test_a_failed_wrap_leaves_the_backbone_alone(case, backbone):
    cls, attributes = type(backbone), set(vars(backbone))
    bad = [dict(level=case.patch), dict(stride=3), dict(layer="blocks.99"), dict(levle=3)]
    for keywords in bad:
        with pytest.raises(ConfigError):
            SRTWrapper(backbone, **keywords)
        with pytest.raises(ConfigError):
            attach(backbone, target="nets", **keywords)
        assert type(backbone) is cls and set(vars(backbone)) == attributes


def test_outputs_are_told_by_name_and_the_others_come_from_the_centre_view():
    backbone = build(BACKBONES["simple-pyramid"])
    plain = run(backbone, images(EVEN))
    every = run(SRTWrapper(backbone, views=VIEWS), images(EVEN))
    some = run(SRTWrapper(backbone, views=VIEWS, outputs=["p3", "p5"]), images(EVEN))
    for key in plain:
        torch.testing.assert_close(some[key], (every if key in ("p3", "p5") else plain)[key])


def test_a_part_that_is_missing_is_named_with_those_there_are():
    backbone = build(BACKBONES["simple-pyramid"])
    with pytest.raises(ConfigError, match=r"'bottom_up'.*'net' \(ViT\)"):
        attach(backbone, target="bottom_up")


def test_a_backbone_is_not_wrapped_inside_a_wrapped_one():
    backbone = build(BACKBONES["simple-pyramid"])
    attach(backbone, target="net")
    with pytest.raises(ConfigError, match=r"(?s)net.*detach"):
        attach(backbone, views=2)
    detach(backbone)
    attach(backbone)
    with pytest.raises(ConfigError, match="detach"):
        attach(backbone, target="net")


def test_a_backbone_that_declares_nothing_is_probed():
    class Silent(Backbone):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 8, 8)

        def forward(self, x):
            return {"map": self.conv(x)}

    backbone = Silent().eval()
    plain = run(backbone, images(EVEN))
    assert not same(run(SRTWrapper(backbone, views=2), images(EVEN)), plain)
    assert backbone._srt.adapter.strides == (8,)


def test_a_declaration_that_the_maps_contradict_is_refused_with_what_was_seen():
    backbone = build(BACKBONES["custom"])
    backbone.coarse = torch.nn.Conv2d(4, 6, 4, 4)
    with pytest.raises(AdapterError, match=r"'coarse'.*64x96"):
        run(SRTWrapper(backbone, views=2), images(EVEN))


@pytest.mark.parametrize(
    "architecture", ["GeneralizedRCNN", "RetinaNet", "PanopticFPN", "SemanticSegmentor"]
)
def test_the_backbone_is_found_in_every_architecture(architecture):
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.DEPTH = "cpu", 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    retina = architecture == "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = f"build_{'retinanet_' if retina else ''}resnet_fpn_backbone"
    levels = ["res3", "res4", "res5"] if retina else ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = levels
    features = ["p3", "p4", "p5"] if retina else ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = features
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[2 ** (5 + i)] for i in range(len(features))]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 1, 16
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.MASK_ON = architecture == "PanopticFPN"
    if retina:
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[x, x * 1.3] for x in (32, 64, 128, 256, 512)]
    model = build_model(cfg).eval()
    assert find_backbone(model) is model.backbone
    with pytest.raises(ConfigError, match=r"stride=None, got 2.*declares"):
        attach(model, stride=2)
    attach(model, target="bottom_up", level=2, views=2)
    assert model.backbone.bottom_up._srt is not None
    image = torch.randint(0, 255, (3, 60, 90), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (found,) = model([{"image": image.float(), "height": 120, "width": 180}])
    if "instances" in found:
        assert found["instances"].image_size == (120, 180)
    if "sem_seg" in found:
        assert found["sem_seg"].shape[1:] == (120, 180)
