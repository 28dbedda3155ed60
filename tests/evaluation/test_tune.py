"""Choosing settings on a few labelled images: candidates, the choice, what is remembered, runs."""

from __future__ import annotations

import json
import math
import os
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from srt_plugins import SRTWrapper, detach
from srt_plugins.cli import main
from srt_plugins.core.guided import Guided
from srt_plugins.errors import ConfigError
from srt_plugins.evaluation import candidates as grid
from srt_plugins.evaluation import compare_mmseg
from srt_plugins.evaluation.depth import FIGURES
from srt_plugins.evaluation.keywords import parse_row
from srt_plugins.evaluation.memory import remembering, remembering_items
from srt_plugins.evaluation.metrics import DepthErrors, MeanIoU
from srt_plugins.evaluation.mmseg_tune import tune_mmseg
from srt_plugins.evaluation.tune import Plan
from srt_plugins.evaluation.tune_choice import Candidate, choose, neighbour_weights, steady_scores
from srt_plugins.evaluation.tune_report import conclusion, pastes
from srt_plugins.settings import Settings

ONE = [(0, 0)]
# Without other ways of views. What SRT adds to a tiny model costs many of its forwards.
ALONE = grid.Ways(fewer=False, levels=False, layers=False, flip=False, padding=False)
WIDE = dict(budget=1000, views=4, ways=ALONE)
WIDE_OPTIONS = ["--budget", "1000", "--views", "4"]
WIDE_OPTIONS += ["--no-levels", "--no-layers", "--no-flip", "--no-padding"]


# --- candidates ----------------------------------------------------------------------------------


def test_candidates_are_every_combination():
    made = grid.candidates(16, 4)
    assert made[0] == {"views": ONE}
    assert len(made) == 2 * 2 * (3 + 16)
    assert {"views": "phases", "smooth": "guided:0.75:0.7", "stride": 4} in made
    assert {"views": "phases", "smooth": 5} in made
    assert len({repr(one) for one in made}) == len(made)
    for one in made:
        Settings.of(**one)


def test_candidates_of_one_view_at_the_own_stride():
    made = grid.candidates(14, 1, finer=False)
    assert len(made) == 19 and all(one["views"] == ONE and "stride" not in one for one in made)


@pytest.mark.parametrize(("views", "keyword"), [(2, 2), (4, "phases"), (5, 5), (9, "phases:3")])
def test_keyword_of_views(views, keyword):
    assert grid.views_keyword(views) == keyword


@pytest.mark.parametrize(("patch", "stride"), [(16, 4), (14, 2), (8, 2), (32, 8), (7, 1), (2, 1)])
def test_the_divisor_nearest_to_a_quarter(patch, stride):
    assert grid.finer_stride(patch) == stride


def test_strengths_beyond_the_edge_only():
    known = [Guided(s, c) for s in grid.SPACES for c in grid.COLOURS]
    assert grid.beyond(Guided(0.5, 0.4), known) == []
    found = grid.beyond(Guided(0.75, 0.2), known)
    assert found == [Guided(0.5, 0.14), Guided(0.75, 0.14), Guided(1.0, 0.14)]
    corner = grid.beyond(Guided(1.0, 1.0), known)
    assert Guided(1.4, 1.0) in corner and Guided(1.0, 1.4) in corner
    assert not set(corner) & set(known)


def test_what_a_budget_pays_for():
    assert grid.affordable(5, 16) == [2, 4] and grid.affordable(9, 16) == [2, 4, 9]
    assert grid.affordable(100, 4) == [2, 4, 9, 16] and grid.affordable(1.5, 16) == []
    assert [Plan(budget=b).most(16) for b in (1, 2, 8.9, 49)] == [1, 2, 4, 49]


def test_other_ways_of_views():
    best = {"views": "phases", "smooth": 3, "stride": 4}
    rest = {"smooth": 3, "stride": 4}
    assert grid.variants(best, 4, 9, 16, 12, grid.Ways()) == [
        {"views": 2, **rest},
        {"views": "phases:3", **rest},
        {"level": 1, **rest},
        {"views": "phases", "flip": True, **rest},
        {"views": "phases", "padding": "reflect", **rest},
        # 25 views of 4 blocks and one pass of 8 cost 9 forwards; 13 of 8 blocks and 4.
        {"views": "phases:5", "layer": 3, "smooth": 3},
        {"views": "phases:3", "layer": 7, "smooth": 3},
    ]
    assert grid.variants(best, 4, 5, 16, 0, ALONE) == []
    assert grid.variants(best, 4, 5, 16, 0, grid.Ways(flip=False, padding=False)) == [
        {"views": 2, **rest}
    ]
    for one in grid.variants({"views": "phases"}, 4, 49, 14, 24, grid.Ways()):
        Settings.of(**one)


def test_images_are_spread_evenly():
    assert Plan(images=4).spread(101) == [12, 37, 63, 88]
    assert Plan(images=4).spread(3) == [0, 1, 2]
    with pytest.raises(ConfigError, match="images to be at least 1, got 0"):
        Plan(images=0)
    with pytest.raises(ConfigError, match="smoth"):
        Plan(rows=[{"smoth": 3}])


# --- the choice ----------------------------------------------------------------------------------


def areas_of(intersections, labelled) -> np.ndarray:
    """Counts ``(N, 4, C)`` of predictions that never name a class too often."""
    common, truth = np.asarray(intersections, float), np.asarray(labelled, float)
    return np.stack([common, truth, common, truth], 1)


def test_classes_count_by_the_root_of_their_pixels():
    metric = MeanIoU(areas_of([[90, 1, 0], [60, 0, 0]], [[100, 4, 0], [100, 5, 0]]), "abc")
    expected = (math.sqrt(200) * 150 / 200 + math.sqrt(9) * 1 / 9) / (math.sqrt(200) + 3) * 100
    first = (10 * 90 / 100 + 2 * 1 / 4) / 12 * 100
    found = steady_scores(metric, np.array([[1, 1], [2, 0]]))
    np.testing.assert_allclose(found, [expected, first])


def test_lower_errors_score_higher():
    def errors(rmse):
        return DepthErrors(np.full((2, len(FIGURES)), rmse), np.array([5, 5]))

    low, high = (steady_scores(errors(r), np.ones((1, 2), int))[0] for r in (0.5, 0.7))
    assert low > high


def test_neighbouring_strengths_share_scores():
    keywords = [
        *(dict(smooth=f"guided:{s:g}:{c:g}") for s in (0.5, 1, 2) for c in (0.5, 1)),
        dict(smooth="guided:1:1", stride=4),
        dict(smooth=3),
    ]
    weights = neighbour_weights([Settings.of(**k) for k in keywords])
    near, far = (math.exp(-(d**2) / (2 * 0.49)) for d in (1, 2))
    own = np.array([1, near, near, far, far, math.exp(-9 / 0.98)])
    np.testing.assert_allclose(weights[0, :6], own / own.sum())
    np.testing.assert_allclose(weights[6:, :], np.eye(8)[6:])


def chosen(one_view, four_views) -> tuple[int, int]:
    """Which of two candidates by the right pixels, of 100 in each image."""
    made = [
        Candidate(Settings(views=views), count, MeanIoU(areas_of(right, [[100]] * len(right)), "a"))
        for views, count, right in ((ONE, 1, one_view), ("phases", 4, four_views))
    ]
    choice = choose(made)
    return choice.best, choice.free


def test_several_views_are_kept_unless_one_is_clearly_better():
    assert chosen([[50]] * 6, [[60]] * 6) == (1, 0)
    # Better in the mean, by one image of six.
    assert chosen([[90], *[[50]] * 5], [[50], *[[52]] * 5]) == (1, 0)
    assert chosen([[60], [61], [63], [60], [62], [61]], [[50]] * 6) == (0, 0)
    # One image tells nothing of others.
    assert chosen([[60]], [[50]]) == (1, 0)


def accuracy(*right) -> list:
    return [[one] for one in right]


def pick(*of, **options) -> int:
    """Which candidate by the right pixels, of 100 in each image."""
    made = []
    for views, count, variant, right in of:
        metric = MeanIoU(areas_of(right, [[100]] * len(right)), "a")
        made.append(Candidate(Settings(views=views), count, metric, variant))
    return choose(made, **options)


def test_another_way_of_views_must_be_likely_better():
    plain, best = (ONE, 1, False, accuracy(*[40] * 6)), ("phases", 4, False, accuracy(*[50] * 6))
    lucky = ("phases:3", 9, True, accuracy(80, *[49] * 5))
    likely = ("phases:3", 9, True, accuracy(55, 56, 54, 53, 56, 55))
    assert pick(plain, best, lucky).best == 1
    choice = pick(plain, best, likely)
    assert choice.best == 2 and choice.free == 0 and choice.scores[2] > choice.scores[1]
    # One way of views is a candidate like others where none of several views is.
    assert pick(plain, likely).best == 0


def test_a_default_gives_way_to_what_is_clearly_better():
    default = ("phases", 4, False, accuracy(*[50] * 6))
    lucky = ([(0, 0), (8, 8)], 2, False, accuracy(80, *[49] * 5))
    better = ([(0, 0), (8, 8)], 2, False, accuracy(55, 56, 54, 53, 56, 55))
    assert pick(default, lucky).best == 1 and not pick(default, lucky).kept
    choice = pick(default, lucky, default=0)
    assert choice.best == 0 and choice.kept
    choice = pick(default, better, default=0)
    assert choice.best == 1 and not choice.kept


def test_scores_are_shared_or_not():
    strengths = ["guided:0.5:0.5", "guided:1:0.5"]
    made = [
        Candidate(Settings(smooth=s), 4, MeanIoU(areas_of(accuracy(r, r), [[100]] * 2), "a"))
        for s, r in zip(strengths, (50, 60))
    ]
    assert choose(made, shared=False).scores.tolist() == [50, 60]
    assert 50 < choose(made).scores[0] < 55 < choose(made).scores[1] < 60


# --- what is remembered --------------------------------------------------------------------------


class Blocks(torch.nn.Module):
    """Patches of 4 pixels, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = torch.nn.Conv2d(3, 8, 4, 4)
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 1) for _ in range(2))
        self.runs = 0

    def forward(self, images, scale=1.0):
        self.runs += 1
        tokens = self.patch(images)
        for layer in self.layers:
            tokens = layer(tokens)
        return (tokens * scale, tokens.mean((2, 3)))


@pytest.fixture
def blocks():
    torch.manual_seed(0)
    return Blocks().eval()


@torch.no_grad()
def test_outputs_come_back_as_they_were(blocks):
    a, b = torch.rand(2, 3, 8, 12), torch.rand(2, 3, 8, 12)
    expected = [blocks(a), blocks(b), blocks(a, scale=2.0)]
    kind, blocks.runs = type(blocks), 0
    with remembering(blocks, 1 << 20) as memory:
        for _ in range(3):
            calls = [blocks(a), blocks(b), blocks(a, scale=2.0)]
            for found, wanted in zip(calls, expected):
                assert isinstance(found, tuple)
                for one, other in zip(found, wanted):
                    assert torch.equal(one, other)
                found[0].zero_()  # as a head with in-place operations does
            a = a.clone()
        changed = a.clone()
        changed[-1, -1, -1, -1] += 1
        assert not torch.equal(blocks(changed)[0], expected[0][0])
    assert (memory.runs, memory.recalled, blocks.runs) == (4, 6, 4)
    assert type(blocks) is kind and "_memory" not in vars(blocks)


@torch.no_grad()
def test_srt_above_the_memory_is_srt(blocks):
    images = torch.rand(1, 3, 16, 20)
    settings = [dict(), dict(smooth=3), dict(views=ONE, smooth="guided"), dict(stride=2)]
    expected = []
    for keywords in settings:
        expected.append(SRTWrapper(blocks, **keywords, view_batch=1)(images))
        adapter = blocks._srt.adapter
        detach(blocks)
    with remembering(blocks, 1 << 20, adapter) as memory:
        for keywords, wanted in zip(settings, expected):
            found = SRTWrapper(blocks, **keywords, view_batch=1)(images)
            assert all(map(torch.equal, found, wanted))
            detach(blocks)
    assert (memory.runs, memory.recalled) == (4, 9)


@torch.no_grad()
def test_hooks_and_gradients_are_not_passed_by(blocks):
    images, seen = torch.rand(1, 3, 8, 8), []
    with remembering(blocks, 1 << 20) as memory:
        blocks(images)
        handle = blocks.layers[0].register_forward_hook(lambda *_: seen.append(1))
        blocks(images), blocks(images)
        handle.remove()
        assert len(seen) == 2
        with torch.enable_grad():
            assert blocks(images)[0].requires_grad
        blocks.train()
        blocks(images)
        blocks.eval()
        assert (memory.runs, memory.recalled, blocks.runs) == (1, 0, 5)


@torch.no_grad()
def test_no_more_is_kept_than_fits(blocks):
    many = [torch.rand(1, 3, 8, 8) for _ in range(4)]
    size = 4 * (3 * 64 + 8 * 4 + 8)
    with remembering(blocks, 2 * size + 1) as memory:
        for _ in range(2):
            for images in many:
                blocks(images)
    assert memory.bytes == 2 * size and (memory.runs, memory.recalled) == (6, 2)


def test_items_are_loaded_once_and_given_as_copies():
    class Data(torch.utils.data.Dataset):
        loaded = 0

        def __getitem__(self, index):
            self.loaded += 1
            return {"image": torch.full((2,), float(index))}

    data = Data()
    with remembering_items(data):
        data[1]["image"].zero_()
        assert data[1]["image"].tolist() == [1, 1] and data[0]["image"].tolist() == [0, 0]
        assert data.loaded == 2
    data[1]
    assert data.loaded == 3 and type(data) is Data


# --- MMSegmentation ------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Few candidates, so that they take no time."""
    monkeypatch.setattr(grid, "SPACES", (0.7,))
    monkeypatch.setattr(grid, "COLOURS", (0.7,))
    monkeypatch.setattr(grid, "KERNELS", (None, 3))
    monkeypatch.setattr("srt_plugins.evaluation.tune._ROUNDS", 0)


def test_figures_are_those_of_a_comparison(tiny, small):
    said = []
    plan = Plan(**WIDE, told=said.append)
    found = tune_mmseg(tiny.config, tiny.checkpoint, plan, device="cpu")
    assert said[0].startswith("12 candidates on 5 images: 20 forwards of the backbone and 60 of")
    assert len(found.keywords) == 12 and found.images == list(range(tiny.images))
    own = found.comparison.results[1::3]
    rows = [found.keywords[r.name] for r in own]
    compared = compare_mmseg(
        tiny.config, tiny.checkpoint, rows, skip=("controls", "oe", "flip", "larger"), device="cpu"
    ).results[1:]
    assert [r.mIoU for r in own] == pytest.approx([r.mIoU for r in compared], abs=1e-9)
    assert own[3].gain_interval == pytest.approx(compared[3].gain_interval)
    # Counted with what is remembered; there without a memory.
    assert [r.flops for r in own] == pytest.approx([r.flops for r in compared], rel=0.005)
    # Four views of five images.
    assert found.context["backbone_calls"] == 4 * tiny.images


def test_images_in_the_validation_data_choose(tiny, small, monkeypatch):
    seen = []

    def watched(given, *args):
        seen.extend(given)
        return choose(given, *args)

    monkeypatch.setattr("srt_plugins.evaluation.tune_trial.choose", watched)
    config = tiny.write(
        "validating",
        "val_dataloader = _base_.test_dataloader\n"
        "val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mDice'])\n"
        "val_cfg = dict(type='ValLoop')",
    )
    plan = Plan(images=2, views=1, finer=False, budget=1000)
    found = tune_mmseg(config, tiny.checkpoint, plan, device="cpu")
    assert found.context["data"] == "val_dataloader" and found.images == [1, 3]
    assert "mDice" in found.comparison.results[0].reported
    assert [r.row.views for r in found.comparison.results] == [1] * 3
    # The labels are those of these images.
    labels = [np.array(Image.open(tiny.root / f"data/labels/{i}.png")) for i in found.images]
    counts = np.stack([np.bincount(label[label < 3], minlength=3) for label in labels])
    np.testing.assert_array_equal(seen[1].metric.areas[:, 3], counts)


FIXED = """
from mmseg.registry import MODELS
from mmseg.models.decode_heads import FCNHead

@MODELS.register_module(force=True)
class FixedHead(FCNHead):
    def forward(self, inputs):
        assert inputs[1].shape[-2:] == (6, 8), 'tokens of another stride'
        return super().forward(inputs)
"""


def test_finer_strides_are_left_out_where_the_head_reads_none(tiny, small, monkeypatch):
    (tiny.root / "fixed_head.py").write_text(FIXED)
    monkeypatch.syspath_prepend(str(tiny.root))
    config = tiny.write(
        "fixed",
        "custom_imports = dict(imports=['fixed_head'])\n"
        "model = dict(decode_head=dict(type='FixedHead'))",
    )
    found = tune_mmseg(config, tiny.checkpoint, Plan(images=2, **WIDE), device="cpu")
    assert len(found.comparison.results) == 6
    assert not any("stride" in keywords for keywords in found.keywords.values())
    (note,) = found.notes
    assert "1 view, stride 2" in note and "tokens of another stride" in note


def test_the_command_prints_what_to_paste(tiny, small, capsys, tmp_path):
    out = tmp_path / "out"
    argv = ["tune", "mmseg", tiny.config, tiny.checkpoint, "--device", "cpu", "--images", "3"]
    extra = "views=phases,smooth=[1,4,1]"
    argv += [*WIDE_OPTIONS, "--row", extra, "--complete", "replicate", "--out", str(out)]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    record = json.loads((out / "tune.json").read_text())
    chosen = record["chosen"]["keywords"]
    assert len(record["candidates"]) == 13 and record["complete"] == "replicate"
    assert "so the gains flatter" in shown and "<- chosen" in shown
    row = shown.rpartition("--row ")[2].strip().strip("'")
    assert Settings.of(**parse_row(row)) == Settings.of(
        **{k: [tuple(v) for v in vs] if isinstance(vs, list) else vs for k, vs in chosen.items()}
    )
    assert "--complete replicate" in shown and "custom_hooks = [dict(type='SRTHook'" in shown
    assert record["chosen"]["name"] in (out / "tune.md").read_text()
    assert not [name for name in os.listdir(out) if name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--images", "0"], "images to be at least 1"),
        (["--row", "smooth=2"], "odd kernel length"),
        (["--budget", "0.5"], "budget to be at least 1"),
        (["--budget", "2", "--views", "4"], "use --budget 4"),
        (["--images-from", "gone"], "--images-from to be a folder of images, got gone"),
        (["--images-from", "."], "has none"),
    ],
)
def test_mistakes(tiny, capsys, options, text):
    assert main(["tune", "mmseg", tiny.config, tiny.checkpoint, *options]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.out == ""


# --- the other frameworks ------------------------------------------------------------------------


def test_detectron2(tmp_path, small):
    pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    from detectron2.config import LazyConfig, instantiate

    from srt_plugins.detectron2 import with_srt
    from srt_plugins.evaluation import compare_detectron2
    from srt_plugins.evaluation.detectron2_tune import tune_detectron2

    from . import detectron2_models as models

    made = models.lazy(tmp_path, "dense", models._DENSE, "SemSegEvaluator")
    plan = Plan(images=models.IMAGES, **WIDE)
    found = tune_detectron2(made.config, made.checkpoint, plan, device="cpu")
    # Its heads were built for declared strides.
    assert [r.row.views for r in found.comparison.results] == [1] * 3 + [4] * 3
    assert any("Expected stride=None" in note for note in found.notes)
    rows = [found.keywords[r.name] for r in found.comparison.results[-2:]]
    compared = compare_detectron2(
        made.config, made.checkpoint, rows, skip=("controls", "oe", "flip", "larger"), device="cpu"
    )
    expected = [r.mIoU for r in compared.results[-2:]]
    assert [r.mIoU for r in found.comparison.results[-2:]] == pytest.approx(expected, abs=1e-9)
    found.best = "plain"
    assert pastes(found, "detectron2") == {}
    found.best = "4 views"
    pasted = pastes(found, "detectron2")
    assert parse_row(pasted["to measure"].rpartition("--row ")[2]) == {"views": "phases"}
    cfg = LazyConfig.load(made.config)
    exec(pasted["LazyConfig"], {"with_srt": with_srt, "model": cfg.model})
    assert instantiate(cfg.model).backbone._srt.settings == Settings(views="phases")
    fewer = tune_detectron2(
        made.config, made.checkpoint, Plan(images=2, views=1, budget=1000), device="cpu"
    )
    assert fewer.images == [1, 4] and fewer.comparison.images == 2


def test_transformers(tmp_path, small):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from srt_plugins.evaluation import compare_transformers
    from srt_plugins.evaluation.transformers_tune import tune_transformers

    from . import transformers_models as models

    torch.set_num_threads(1)
    model = models.saved("metric", tmp_path)
    data = models.write_folder(tmp_path / "data")
    scale = {"depth_scale": models.DEPTH_SCALE}
    found = tune_transformers(model, data, Plan(finer=False, **WIDE), device="cpu", **scale)
    assert found.comparison.metric == "RMSE" and len(found.images) == len(models.SIZES)
    rows = [found.keywords[r.name] for r in found.comparison.results[-2:]]
    compared = compare_transformers(
        model, data, rows, skip=("controls", "oe", "flip", "larger"), device="cpu", **scale
    )
    expected = [r.RMSE for r in compared.results[-2:]]
    assert [r.RMSE for r in found.comparison.results[-2:]] == pytest.approx(expected, abs=1e-6)
    # Errors: the lowest is the best, of several views and of one.
    values = {r.name: (r.row.views, r.RMSE) for r in found.comparison.results}
    assert found.free == min((n for n in values if values[n][0] == 1), key=lambda n: values[n][1])
    better = values[found.best][1] < min(v for n, v in values.values() if n == 1)
    views = values[found.best][0]
    assert ("no better than that one" in conclusion(found)) == (views > 1 and not better)


# --- every line to paste, executed ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned_tiny(tiny):
    """A tuning with all ways of views, of which any candidate can be declared the best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "SPACES", (0.7,))
        patch.setattr(grid, "COLOURS", (0.7,))
        patch.setattr("srt_plugins.evaluation.tune._ROUNDS", 0)
        ways, rows = grid.Ways(fewer=False), [{"views": [(0, 0), (1, -2)]}, {"views": "phases:7"}]
        plan = Plan(images=2, budget=45, views=4, ways=ways, rows=rows)
        return tune_mmseg(tiny.config, tiny.checkpoint, plan, device="cpu")


def test_all_ways_of_views_are_tried(tuned_tiny):
    tried = [one for own in tuned_tiny.keywords.values() for one in own]
    assert {"level", "layer", "flip", "padding"} <= set(tried)
    for result in tuned_tiny.comparison.results:
        assert 0.99 < result.flops_ratio < 45.9
    assert "above the budget of 45 forwards:" in tuned_tiny.notes[-1]
    assert "49 views" not in tuned_tiny.keywords


@pytest.mark.parametrize("way", ["smooth", "stride", "level", "layer", "flip", "padding", "views"])
def test_what_is_printed_gives_the_settings(tiny, tuned_tiny, tmp_path, way):
    from mmengine.config import Config
    from mmengine.registry import HOOKS, DefaultScope

    import srt_plugins

    names = {k: n for n, own in tuned_tiny.keywords.items() if n != "plain" for k in own}
    best = replace(tuned_tiny, best=names[way])
    wanted = Settings.of(**best.settings)
    printed = pastes(best, "mmseg")
    model = tiny.build(tiny.config)
    exec(printed["Python"], {"attach": srt_plugins.attach, "model": model})
    assert model.backbone._srt.settings == wanted

    text = printed["MMSegmentation"]
    (hook,) = Config.fromstring(text, file_format=".py").custom_hooks
    with DefaultScope.overwrite_default_scope("mmseg"):
        built = HOOKS.build(hook)
    assert Settings.of(**built.keywords) == wanted

    argv = shlex.split(printed["to measure"])
    assert argv[0] == "srt"
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srt_plugins.evaluation.mmseg_compare.plan", lambda srt, *_: rows.extend(srt))
        patch.setattr("srt_plugins.evaluation.runs.Runs.compared", _stop)
        assert main([*argv[1:], "--out", str(tmp_path), "--device", "cpu"]) == 1
    assert wanted in [settings for settings, _ in rows]


def _stop(*_):
    raise RuntimeError("far enough")


@pytest.mark.parametrize("target", [None, "bottom_up"])
def test_what_is_printed_for_yacs(tuned_tiny, target):
    pytest.importorskip("detectron2", reason="needs Detectron2 (make setup DETECTRON2=...)")
    from detectron2.config import get_cfg

    from srt_plugins.detectron2 import add_srt_config
    from srt_plugins.detectron2.config import srt_keywords

    for name, own in tuned_tiny.keywords.items():
        if name == "plain":
            continue
        context = {"builder": "build_vit", "target": target, "config": "c", "checkpoint": "w"}
        printed = pastes(replace(tuned_tiny, best=name, context=context), "detectron2")["yacs"]
        cfg = get_cfg()
        add_srt_config(cfg)
        cfg.merge_from_list(shlex.split(printed))
        assert Settings.of(**srt_keywords(cfg.MODEL.SRT)) == Settings.of(**own)
        assert cfg.MODEL.BACKBONE.NAME == "build_srt_backbone"
        assert ("build_vit", target) == (cfg.MODEL.SRT.BACKBONE, cfg.MODEL.SRT.TARGET)
