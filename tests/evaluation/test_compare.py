"""The whole comparison on a real model and real data, against MMSegmentation run directly."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re

import numpy as np
import pytest
import torch

from srt_plugins import attach, views_used
from srt_plugins.cli import main
from srt_plugins.core.views import resolve
from srt_plugins.evaluation import compare_mmseg
from srt_plugins.evaluation.checkpoint import load_weights
from srt_plugins.evaluation.mmseg_compare import SegmentorRuns as Runs
from srt_plugins.evaluation.mmseg_session import Session
from srt_plugins.evaluation.request import Request
from srt_plugins.evaluation.rows import plan, settings_of

GUIDED = "1x smoothing guided 0.75 0.4"
KERNELS = ("1x smoothing [1 2 1]/4", "1x smoothing [1 4 6 4 1]/16", GUIDED)
FREE = "1x replicate padding"
CONTROLS = (*KERNELS, FREE, *(f"{FREE}, {name.removeprefix('1x ')}" for name in KERNELS))
ROWS = (
    "plain",
    *CONTROLS,
    "SRT 4 views",
    "SRT 4 views + [1 2 1]/4",
    "output ensemble (OE), 4 views",
    "flip TTA",
    "larger input",
)


def directly(tiny, tmp_path, change=lambda cfg: None, wrap=lambda model: None):
    """Metrics of MMSegmentation's Runner, written without this package's session."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    cfg = Config.fromfile(tiny.config)
    for key in ("train_dataloader", "visualizer", "default_hooks"):
        cfg.pop(key)
    cfg.work_dir, cfg.load_from, cfg.log_level = str(tmp_path), tiny.checkpoint, "ERROR"
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.pop("prefetch_factor")
    change(cfg)
    runner = Runner.from_cfg(cfg)
    runner.model.to("cpu")
    wrap(runner.model)
    return runner.test()


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """The command with all default rows, once."""
    out, cwd = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("cwd")
    with contextlib.ExitStack() as stack:
        before = os.getcwd()
        stack.callback(os.chdir, before)
        os.chdir(cwd)
        code = main(
            ["compare", "mmseg", tiny.config, tiny.checkpoint, "--out", str(out), "--device", "cpu"]
        )
    assert code == 0
    return out, cwd, json.loads((out / "compare.json").read_text())


@pytest.fixture
def session(tiny):
    with Session(tiny.config, Request(device="cpu")) as opened:
        load_weights(opened.model, tiny.checkpoint)
        yield opened


def test_rows_and_files(run, tiny):
    out, cwd, found = run
    *names, larger = [row["name"] for row in found["rows"]]
    assert names == list(ROWS[:-1])
    scale = float(re.fullmatch(r"larger input, x([\d.]+) per side", larger).group(1))
    assert 1.5 < scale <= 2  # four views' worth of tokens, less what attention adds
    assert [row["views"] for row in found["rows"]] == [1] * 8 + [4, 4, 4, 2, 1]
    assert sorted(os.listdir(out)) == ["compare.json", "compare.md", "compare.png"]
    assert os.listdir(cwd) == []  # no work_dir beside --out
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert found["images"] == tiny.images
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_figures_of_the_rows(run):
    rows = {row["name"]: row for row in run[2]["rows"]}
    for row in rows.values():
        assert row["mIoU"] == pytest.approx(row["reported"]["mIoU"], abs=0.00501)
        assert row["mAcc"] == pytest.approx(row["reported"]["mAcc"], abs=0.00501)
        assert row["aAcc"] == pytest.approx(row["reported"]["aAcc"], abs=0.00501)
        assert row["mIoU"] == pytest.approx(np.mean(list(row["IoU"].values())))
        assert row["gain"] == pytest.approx(row["mIoU"] - rows["plain"]["mIoU"])
        low, high = row["gain_interval"]
        assert low <= high
        assert row["seconds_per_image"] > 0 and row["peak_memory"] > 1 << 20
    assert rows["plain"]["gain_interval"] == [0, 0]
    ratios = [row["flops_ratio"] for row in run[2]["rows"]]
    assert ratios[0] == 1 and all(1 <= ratio < 1.5 for ratio in ratios[1:8])
    assert all(4 < ratio < 4.5 for ratio in ratios[8:10])
    # The larger input costs what the views cost, up to rounding to whole patches.
    assert ratios[10:12] == [4, 2] and 3.3 < ratios[12] < 4.7
    best = max(("plain", *CONTROLS), key=lambda name: rows[name]["mIoU"])
    assert run[2]["best_1x_control"] == best
    assert rows[best]["gain_over_control"] == 0


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("plain", None),
        (KERNELS[0], dict(views=[(0, 0)], smooth=3)),
        ("SRT 4 views", {}),
        ("SRT 4 views + [1 2 1]/4", dict(smooth=3)),
    ],
)
def test_rows_are_what_the_runner_gives(run, tiny, tmp_path, name, keywords):
    def wrap(model):
        if keywords is not None:
            attach(model, **keywords)

    row = next(row for row in run[2]["rows"] if row["name"] == name)
    assert directly(tiny, tmp_path, wrap=wrap) == row["reported"]


def test_rows_differ(run):
    assert len({row["aAcc"] for row in run[2]["rows"]}) == len(ROWS)


def test_json_on_stdout_is_only_json(tiny, tmp_path, capsys):
    argv = ["compare", "mmseg", tiny.config, tiny.checkpoint, "--out", str(tmp_path / "out")]
    argv += ["--json", "--limit", "2", "--level", "1", "--skip", "oe", "flip", "larger"]
    assert main([*argv, "--device", "cpu", "--row", "views=[(0,0),(4,4)],smooth=[1,2,1]"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    names = [row["name"] for row in found["rows"]]
    assert names == ["plain", *CONTROLS, "SRT 9 views, level 1", "SRT 2 views + [1 2 1]/4"]
    assert found["images"] == 2 and "--level 1" in found["command"]
    assert found == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert captured.err.rstrip().endswith("compare.png")


def test_everything_is_put_back(session):
    """Each row runs as if it were the only one; nothing stays on the model."""
    settings = [settings_of(row) for row in ({}, {"smooth": 3}, {"layer": 0}, {"stride": 4})]
    srt = [(s, resolve(s.views, s.level, 8)) for s in settings]
    runs = Runs(session, "replicate", srt[0][1])
    rows = plan(srt, own_padding=True, free_padding=True)
    session.model.eval()
    own = {name: dict(vars(module)) for name, module in session.model.named_modules()}
    first = [runs.measured(row, 0) for row in rows]
    assert {name: dict(vars(module)) for name, module in session.model.named_modules()} == own
    again = [runs.measured(row, 0) for row in reversed(rows)][::-1]
    for one, other in zip(first, again):
        assert np.array_equal(one.metrics[0].areas, other.metrics[0].areas), one.row.name
        assert one.reported == other.reported


def test_plain_logits_are_the_same_to_the_bit_afterwards(session):
    from mmengine.dataset import pseudo_collate

    def logits():
        with torch.no_grad():
            session.model.eval()
            return session.model.test_step(pseudo_collate([session.dataset[1]]))[0].seg_logits.data

    before = logits()
    settings = settings_of({})
    runs = Runs(session, "reflect", resolve(None, None, 8))
    for row in plan([(settings, runs.views)]):
        with runs.active(row):
            assert row.name == "plain" or not torch.equal(logits(), before)
    assert torch.equal(logits(), before)


def test_completion_swaps_the_preprocessor(tiny, tmp_path):
    found = compare_mmseg(
        tiny.config,
        tiny.checkpoint,
        [{"views": 2}],
        complete="replicate",
        skip=["controls", "oe", "flip", "larger"],
        device="cpu",
    )
    assert [r.name for r in found.results] == ["plain", "1x plain, own padding", "SRT 2 views"]

    def change(cfg):
        cfg.model.data_preprocessor.update(type="PaddedSegDataPreProcessor", padding="replicate")

    assert found["plain"].reported == directly(tiny, tmp_path / "a", change)
    assert found["1x plain, own padding"].reported == directly(tiny, tmp_path / "b")
    assert found["plain"].aAcc != found["1x plain, own padding"].aAcc


def test_a_config_that_pads_nothing_is_completed_to_patches(tiny):
    config = tiny.write("unpadded", "model = dict(data_preprocessor=dict(test_cfg=None))")
    skip = ["controls", "oe", "flip", "larger"]
    same = {
        c: compare_mmseg(c, tiny.checkpoint, [{}], complete="reflect", skip=skip, device="cpu")
        for c in (config, tiny.config)
    }
    assert same[config]["plain"].aAcc == same[tiny.config]["plain"].aAcc


def test_a_wrapped_config_still_has_plain_rows(tiny, run):
    config = tiny.write(
        "wrapped",
        "custom_imports = dict(imports=['srt_plugins.mmseg'])\n"
        "model = dict(backbone=dict(type='SRTWrapper', wraps='VisionTransformer', "
        "srt=dict(level=1)))",
    )
    found = compare_mmseg(config, tiny.checkpoint, skip=["oe", "flip", "larger"], device="cpu")
    names = ["plain", *CONTROLS, "SRT 9 views, level 1", "SRT 9 views, level 1 + [1 2 1]/4"]
    assert [r.name for r in found.results] == names
    before = {row["name"]: row for row in run[2]["rows"]}
    for name in names[:3]:
        assert found[name].reported == before[name]["reported"]


def test_the_control_of_a_row_has_its_smoothing(tiny):
    rows = [{"views": 2, "smooth": 7}, {"views": 2, "layer": 0, "smooth": 3}]
    found = compare_mmseg(
        tiny.config, tiny.checkpoint, rows, skip=["oe", "flip", "larger"], limit=2, device="cpu"
    )
    controls = [r.name for r in found.of_kind("control")]
    assert controls[:3] == list(KERNELS)
    own = ["smoothing [1 6 15 20 15 6 1]/64", "smoothing layer 0 + [1 2 1]/4"]
    assert controls[3:6] == [*(f"1x {name}" for name in own), FREE]
    assert controls[-2:] == [f"{FREE}, {name}" for name in own]


def test_slide_mode(tiny, tmp_path):
    """Flip and the others go around the windows, and each window's size goes to the head."""
    config = tiny.write(
        "slide",
        "model = dict(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(24, 24)))",
    )
    with Session(config, Request(device="cpu", limit=1)) as session:
        load_weights(session.model, tiny.checkpoint)
        model = session.model.eval()
        inputs = torch.randn(1, 3, 48, 64)
        metas = [dict(ori_shape=(42, 60), img_shape=(42, 60), pad_shape=(48, 64))]
        runs = Runs(session, None, resolve(None, None, 8))
        plain, *rows = plan([(settings_of({}), runs.views)], frozenset(["controls"]))
        with torch.no_grad():
            by_hand = model.slide_inference(inputs, [dict(m) for m in metas])
            mirrored = model.slide_inference(inputs.flip(3), [dict(m) for m in metas]).flip(3)
            with runs.active(rows[-2]):
                assert torch.equal(model.inference(inputs, metas), (by_hand + mirrored) / 2)
            for row in (plain, *rows):
                with runs.active(row):
                    assert model.inference(inputs, metas).shape == (1, 3, 48, 64)


def test_batches_give_the_same_scores(tiny, run):
    found = compare_mmseg(
        tiny.config, tiny.checkpoint, [{}], batch_size=2, skip=["larger", "controls"], device="cpu"
    )
    for name in ("plain", "SRT 4 views", "output ensemble (OE), 4 views", "flip TTA"):
        row = next(row for row in run[2]["rows"] if row["name"] == name)
        assert found[name].aAcc == pytest.approx(row["aAcc"], abs=0.1)


def test_one_image_has_no_interval(tiny):
    found = compare_mmseg(
        tiny.config, tiny.checkpoint, [{}], limit=1, skip=["oe", "flip", "larger"], device="cpu"
    )
    assert found.best_srt.gain_interval is None
    assert "too few images" in found.conclusion()
    assert found.to_dict()["rows"][0]["gain_interval"] is None


def test_a_tolerance_costs_what_its_views_cost(tiny, capsys):
    """Views, scores and operations of a row against images run one by one with that many."""
    argv = ["compare", "mmseg", tiny.config, tiny.checkpoint, "--views", "2", "--row", "views=9"]
    argv += ["--row", "tolerance=0.4,views=9", "--skip", "controls", "oe", "flip", "larger"]
    assert main([*argv, "--device", "cpu", "--out", str(tiny.root / "out")]) == 0
    assert re.search(r"SRT up to 9 views, tolerance 0.4 +[\d.]+ of 9 ", capsys.readouterr().out)
    found = json.loads((tiny.root / "out" / "compare.json").read_text())
    _, two, nine, row = found["rows"]
    used = []
    with Session(tiny.config, Request(device="cpu")) as session:
        load_weights(session.model, tiny.checkpoint)
        attach(session.model.eval(), views=9, tolerance=0.4)
        for i in range(tiny.images):
            with torch.no_grad():
                session.model.test_step({k: [v] for k, v in session.dataset[i].items()})
            used += views_used(session.model)
    assert len(set(used)) > 1
    assert row["views"] == 9 and row["mean_views"] == pytest.approx(np.mean(used))
    per_view = (nine["flops"] - two["flops"]) / 7
    assert row["flops"] == pytest.approx(two["flops"] + per_view * (np.mean(used) - 2), rel=0.03)
    assert row["flops_ratio"] == pytest.approx(np.mean(used), rel=0.1)


def test_a_larger_input_that_does_not_fit_is_left_out(tiny, tmp_path):
    """MAE takes images of one size only."""
    config = tiny.write(
        "fixed",
        "model = dict(backbone=dict(_delete_=True, type='MAE', img_size=(48, 64), patch_size=8, "
        "embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2, out_indices=(0, 1)))",
    )
    torch.save(tiny.build(config).state_dict(), tmp_path / "bare.pth")
    found = compare_mmseg(config, tmp_path / "bare.pth", limit=2, device="cpu")
    assert [r.name for r in found.results] == list(ROWS[:-1])
    assert any(note.startswith("larger input: left out") for note in found.notes)


def test_first_images_and_progress(tiny):
    seen = []
    found = compare_mmseg(
        tiny.config,
        tiny.checkpoint,
        [{}],
        limit=3,
        skip=["controls", "oe", "flip", "larger"],
        device="cpu",
        progress=lambda *told: seen.append(told),
    )
    assert found.images == 3
    assert seen == [
        (name, number, 2, done, 3)
        for number, name in enumerate(["plain", "SRT 4 views"])
        for done in (1, 2, 3)
    ]


def test_a_config_object_is_not_changed(tiny):
    from mmengine.config import Config

    cfg = Config.fromfile(tiny.config)
    before = cfg.pretty_text
    skip = ["controls", "oe", "flip", "larger"]
    found = compare_mmseg(cfg, tiny.checkpoint, [{}], limit=1, skip=skip, device="cpu")
    assert cfg.pretty_text == before
    assert math.isfinite(found["plain"].mIoU)


def test_mmengine_s_log_is_usable_after_a_session(tiny):
    """MMEngine writes to every file of its current logger when weights are initialised."""
    with Session(tiny.config, Request(device="cpu")):
        pass
    tiny.build(tiny.config).init_weights()
