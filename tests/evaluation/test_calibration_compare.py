"""Calibration in ``srt compare``: figures of every kind of row against what is made by hand of the
model's own outputs.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

pytest.importorskip("mmseg")

from srt_plugins import ConfigError, dispersion, srt_enabled
from srt_plugins.cli import main
from srt_plugins.core.views import resolve
from srt_plugins.evaluation import compare_mmseg

from . import depth_models
from .test_calibration import slow_ause, slow_ece, slow_spearman

SKIP = ("controls", "larger")
SRT, OE, FLIP = "SRT 4 views", "output ensemble (OE), 4 views", "flip TTA"
VIEWS = resolve("phases", None, 8).translations


def moved(image, dy, dx):
    """An image with its content moved down and right, its edges continued."""
    h, w = image.shape[-2:]
    rows, columns = (np.arange(n) - d for n, d in ((h, dy), (w, dx)))
    return image[..., rows.clip(0, h - 1), :][..., columns.clip(0, w - 1)]


def moved_back(output, dy, dx):
    """An output moved back, NaN where the view does not show the image."""
    h, w = output.shape[-2:]
    back = np.full(output.shape, np.nan)
    for y in range(h):
        for x in range(w):
            if 0 <= y + dy < h and 0 <= x + dx < w:
                back[..., y, x] = output[..., y + dy, x + dx]
    return back


def spread_of(outputs):
    """``(V, C, H, W)`` to the root mean square over channels of the deviation over views."""
    return np.sqrt((np.nanstd(np.stack(outputs), axis=0) ** 2).mean(0))


@torch.no_grad()
def by_hand(model, image, size, predict):
    """For each row outputs ``(C, H, W)``, float64, and dispersion ``(H, W)`` or None."""
    found = {"plain": (predict(image), None)}
    with srt_enabled(model.backbone, dispersion=True):
        out = predict(image)
        maps = dispersion(model.backbone)[1]  # the head reads the second output
        spread = F.interpolate(maps, image.shape[-2:], mode="bilinear")[0, 0]
    found[SRT] = out, spread.double().numpy()
    each = [moved_back(predict(moved(image, *d)), *d) for d in VIEWS]
    found[OE] = np.nanmean(np.stack(each), 0), spread_of(each)
    pair = [predict(image), predict(image.flip(-1))[..., ::-1]]
    found[FLIP] = sum(pair) / 2, spread_of(pair)
    h, w = size
    return {
        name: (o[..., :h, :w], None if d is None else d[:h, :w]) for name, (o, d) in found.items()
    }


def check(row, error, uncertainties, root=False):
    """A row's figures against loops over the judged pixels.

    The tolerance is for pixels that are all but equal: float32 may put them in another order.
    """
    error = error.tolist()
    for name, values in uncertainties.items():
        values = values.tolist()
        found = {k: row.calibration.figures[f"{k}_{name}"].value for k in ("AUSE", "correlation")}
        assert found["AUSE"] == pytest.approx(slow_ause(values, error, root), rel=2e-3), name
        assert found["correlation"] == pytest.approx(slow_spearman(values, error), abs=2e-3), name


def test_segmentation_is_that_of_the_outputs(tiny):
    found = compare_mmseg(
        tiny.config, tiny.checkpoint, [{}], skip=SKIP, limit=1, device="cpu", calibration=True
    )
    model = tiny.build(tiny.config)
    model.load_state_dict(torch.load(tiny.checkpoint)["state_dict"])
    model.eval()
    pixels, truth = (
        np.array(Image.open(tiny.root / "data" / folder / "0.png"))
        for folder in ("images", "labels")
    )
    image = (torch.from_numpy(pixels).permute(2, 0, 1).float()[None] - 120) / 60
    image = F.pad(image, (0, 4, 0, 6))

    def predict(image):
        return (
            F.interpolate(
                model.decode_head(model.backbone(image)), image.shape[-2:], mode="bilinear"
            )[0]
            .double()
            .numpy()
        )

    rows = by_hand(model, image, truth.shape, predict)
    assert [r.name for r in found.results if r.calibration] == ["plain", SRT, OE, FLIP]
    for name, (logits, spread) in rows.items():
        shares = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        judged = truth != 255
        confidence = shares.max(0)[judged]
        right = (logits.argmax(0) == truth)[judged].astype(float)
        row = found[name].calibration
        expected = slow_ece(confidence.tolist(), right.tolist())
        assert row.figures["ECE"].value == pytest.approx(expected, rel=2e-3)
        over = 100 * (confidence.mean() - right.mean())
        assert row.overconfidence == pytest.approx(over, rel=2e-3)
        uncertainties = {"confidence": 1 - confidence}
        if spread is not None:
            uncertainties["dispersion"] = spread[judged]
        check(found[name], 1 - right, uncertainties)
        assert ("AUSE_both" in row.figures) == (spread is not None)


def test_depth_is_that_of_the_outputs(tmp_path):
    tiny = depth_models.made(tmp_path)
    found = compare_mmseg(
        tiny.config,
        tiny.checkpoint,
        [{}],
        skip=SKIP,
        limit=1,
        device="cpu",
        complete="replicate",
        calibration=True,
    )
    ((image, truth),) = depth_models.scenes(1)
    image = depth_models.padded(image, "replicate")

    def predict(image):
        return depth_models.depth_of(tiny.model, image)[0].double().numpy()

    judged = (truth > depth_models.RANGE[0]) & (truth < depth_models.RANGE[1])
    assert set(found["plain"].calibration.figures) == {"AUSE_depth", "correlation_depth"}
    rows = by_hand(tiny.model, image, truth.shape, predict)
    for name, (depth, spread) in rows.items():
        if spread is not None:
            error = ((depth[0] - truth)[judged]) ** 2
            uncertainties = {"depth": depth[0][judged], "dispersion": spread[judged]}
            check(found[name], error, uncertainties, root=True)
            assert "AUSE_both_over_depth" in found[name].calibration.added


def test_off_by_default_and_changes_no_other_figure(tiny):
    options = dict(skip=("larger", "oe"), limit=2, device="cpu", rows=[{}])
    plain = compare_mmseg(tiny.config, tiny.checkpoint, **options)
    found = compare_mmseg(tiny.config, tiny.checkpoint, calibration=True, **options)
    assert all(r.calibration is None for r in plain.results)
    assert "calibration" not in str(plain.to_dict())
    for before, after in zip(plain.results, found.results):
        assert before.figures == pytest.approx(after.figures, abs=0.05)
        figures = after.calibration.figures
        assert ("AUSE_dispersion" in figures) == (after.name in (SRT, FLIP)), after.name
    assert found.calibration_controls["ECE"] in (
        "plain",
        *(r.name for r in found.of_kind("control")),
    )


def test_command_line_writes_tables_and_json(tiny, tmp_path, capsys):
    words = ["compare", "mmseg", tiny.config, tiny.checkpoint, "--out", str(tmp_path)]
    words += ["--skip", "controls", "larger", "oe", "--device", "cpu", "--calibration"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    written = (tmp_path / "compare.md").read_text()
    for text in (shown, written):
        assert "ECE in percent" in text and "AUSE dispersion" in text and "both over 1 - p" in text
    read = json.loads((tmp_path / "compare.json").read_text())
    assert read["calibration"] is True
    plain, *_, srt, _ = read["rows"]
    assert plain["calibration"]["ECE"]["gain_interval"] == [0, 0]
    low, high = srt["calibration"]["ECE"]["gain_interval"]
    assert low <= srt["calibration"]["ECE"]["gain"] <= high
    assert len(srt["calibration"]["AUSE_both_over_confidence"]["gain_interval"]) == 2
    assert read["calibration_controls"]["ECE"]


def test_scores_that_are_no_logits_are_refused(tiny):
    from srt_plugins.evaluation.calibration_mmseg import check_head

    model = tiny.build(tiny.config)
    check_head(model)
    model.decode_head = torch.nn.Conv2d(16, 3, 1)
    with pytest.raises(ConfigError, match="got Conv2d, whose scores are no logits"):
        check_head(model)
