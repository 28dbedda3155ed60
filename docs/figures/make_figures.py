"""Draws the figures of the page "How it works": ``python docs/figures/make_figures.py [NAME ...]``.

Everything in them is computed by the package, on a rendered scene and with the shipped demo model.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from srt_plugins.core.resample import axis_matrices
from srt_plugins.core.views import Views, grid, phases
from srt_plugins.scenes import CLASSES, PALETTE, Scenes

FOLDER = Path(__file__).parent
DEMO = FOLDER.parents[1] / "examples" / "demo"
PATCH = 16
SCENE = 10  # of the validation split
BLUE, ORANGE, GREY = "#22577a", "#e76f51", "#9aa5ab"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "figure.facecolor": "white",
    "legend.frameon": False,
}


def views() -> plt.Figure:
    """The four default views of a part of a scene, and where their patches lie in the image."""
    image = Scenes("val")[SCENE].image
    top, left, size = 112, 118, 64
    figure, axes = plt.subplots(2, 4, figsize=(8.6, 4.7), layout="constrained")
    for column, (dy, dx) in enumerate(phases(PATCH).translations):
        moved = np.pad(image, ((dy, 0), (dx, 0), (0, 0)), mode="edge")
        seen, placed = axes[:, column]
        seen.imshow(moved[top : top + size, left : left + size])
        seen.set_title(f"view ({dy}, {dx})")
        placed.imshow(image[top : top + size, left : left + size])
        for at in range(0, size + 1, PATCH):
            seen.axhline(at - 0.5, color="white", lw=1)
            seen.axvline(at - 0.5, color="white", lw=1)
        for at in range(-PATCH, size + 1, PATCH):
            placed.axhline(at - dy - 0.5, color=ORANGE, lw=1.2)
            placed.axvline(at - dx - 0.5, color=ORANGE, lw=1.2)
        for ax in (seen, placed):
            ax.set(xticks=[], yticks=[], xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    axes[0, 0].set_ylabel("what the backbone sees:\nthe content moves")
    axes[1, 0].set_ylabel("in the image:\nthe patches move")
    return figure


def alignment_figure() -> plt.Figure:
    """One axis of the alignment, and the two of them around a token grid."""
    figure = plt.figure(figsize=(8.6, 5.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 0.78])
    axes = above.subplots(1, 3, width_ratios=[1, 1, 1])
    shift = 5
    for ax, cell in zip(axes, (16, 4, 1)):
        cells = 4 * PATCH // cell
        matrix = axis_matrices(4, PATCH, cell, cells, [shift])[0].numpy()
        ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
        if cell == PATCH:
            for k, t in np.argwhere(matrix).tolist():
                share = f"{round(matrix[k, t] * PATCH)}/16"
                ax.text(t, k, share, ha="center", va="center", fontsize=8.5)
        unit = "pixel" if cell == 1 else "pixels"
        ax.set(title=f"cells of {cell} {unit}: {cells} x 4", xlabel="token of the view")
        ax.set(xticks=range(4), ylabel="output cell")
        ax.set_yticks(range(0, cells, max(1, cells // 4)))
    above.suptitle(f"$A(d)$ for $d = {shift}$ pixels and patches of 16, along one axis")
    _product(below, shift)
    return figure


def _product(figure: Any, shift: int) -> None:
    """A_y F A_x^T as a row of pictures, with the grey values of a scene as F."""
    image = torch.from_numpy(Scenes("val")[SCENE].image[80:176, 96:224]).float().mean(2) / 255
    dy, dx = shift, 11
    moved = torch.nn.functional.pad(image[None, None], (dx, 0, dy, 0), mode="replicate")
    tokens = torch.nn.functional.avg_pool2d(moved[..., :96, :128], PATCH)[0, 0]
    a_y = axis_matrices(6, PATCH, 4, 24, [dy])[0].float()
    a_x = axis_matrices(8, PATCH, 4, 32, [dx])[0].float()
    shown = (a_y.sum(1)[:, None] * a_x.sum(1)).clamp_min(1e-6)
    parts = [
        (a_y, "Blues", "$A_y(5)$\n24 x 6"),
        (tokens, "gray", "$F$, tokens of view (5, 11)\n6 x 8"),
        (a_x.T, "Blues", "$A_x(11)^T$\n8 x 32"),
        (
            (a_y @ tokens @ a_x.T) / shown,
            "gray",
            "in place, cells of 4 pixels\n24 x 32; black: not seen",
        ),
    ]
    axes = figure.subplots(1, 4, width_ratios=[0.5, 1, 1.5, 1.35])
    for ax, (values, colours, title), sign in zip(axes, parts, ("·", "·", "=", "")):
        ax.imshow(values.numpy(), cmap=colours, aspect="auto" if colours == "Blues" else "equal")
        ax.set(title=title, xticks=[], yticks=[])
        ax.text(1.04, 0.5, sign, transform=ax.transAxes, fontsize=15, va="center")


def coverage() -> plt.Figure:
    """Which share of the views shows each cell, and what dividing by all of them would do."""
    h, w = 8, 11
    sets = [
        ("four half-patch views", phases(PATCH), PATCH),
        ("the paper's 49, level 3", grid(3, PATCH), PATCH),
        ("four views, cells of 4 pixels", phases(PATCH), 4),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.3), layout="constrained")
    for ax, (title, chosen, cell) in zip(axes, sets):
        shares = covered(chosen, h, w, cell)
        drawn = ax.imshow(shares, cmap="viridis", vmin=0.25, vmax=1)
        ax.set(title=f"{title}\nleast: {shares.min():.2f}", xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, shrink=0.85, label="share of views that show it")
    return figure


def covered(chosen: Views, h: int, w: int, cell: int) -> np.ndarray:
    """Share of the views that show each cell of an image of ``h x w`` tokens."""
    r = PATCH // cell
    a_y = axis_matrices(h, PATCH, cell, h * r, [dy for dy, _ in chosen.translations])
    a_x = axis_matrices(w, PATCH, cell, w * r, [dx for _, dx in chosen.translations])
    return torch.einsum("vy,vx->yx", a_y.sum(2), a_x.sum(2)).div(len(chosen)).numpy()


def order() -> plt.Figure:
    """The order of 16 views, and how near the mean of its beginnings is to that of 64 views."""
    chosen = phases(PATCH, 4).translations
    raster = sorted(chosen, key=lambda p: (p[0] % PATCH, p[1] % PATCH))
    rng = np.random.default_rng(0)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.6, 3.3), width_ratios=[1, 1.7], layout="constrained"
    )
    left.add_patch(Rectangle((-2, -2), PATCH, PATCH, fill=False, ec=GREY))
    for i, (dy, dx) in enumerate(chosen):
        y, x = dy % PATCH, dx % PATCH
        left.scatter(x, y, s=330, color=plt.get_cmap("Blues_r")(0.1 + i / 20), zorder=2)
        left.text(x, y, i + 1, ha="center", va="center", color="white" if i < 9 else "black")
    left.set(title="sixteen phases of a patch of 16", xlabel="dx, pixels", ylabel="dy, pixels")
    left.set(xlim=(-2.6, 14.6), ylim=(14.6, -2.6), xticks=range(0, 16, 4), yticks=range(0, 16, 4))
    left.set_aspect("equal")
    aligned = dict(zip(phases(PATCH, 8).translations, _aligned_views(phases(PATCH, 8))))
    target = torch.stack(list(aligned.values())).mean(0)
    counts = range(1, 17)

    def distances(points: Any) -> list[float]:
        """Of the means of 1 to 16 views from that of 64, relative to the spread of the latter."""
        sums = torch.stack([aligned[tuple(p)] for p in points]).cumsum(0)
        means = sums / torch.arange(1, 17)[:, None, None, None]
        centred = target - target.mean((1, 2), keepdim=True)
        return ((means - target).flatten(1).norm(dim=1) / centred.norm()).tolist()

    random = [distances(rng.permutation(raster).tolist()) for _ in range(200)]
    band = np.percentile(random, [5, 95], axis=0)
    right.fill_between(counts, *band, color=GREY, alpha=0.3, lw=0, label="random orders, 90 %")
    right.plot(counts, distances(raster), color=ORANGE, label="row by row")
    right.plot(counts, distances(chosen), color=BLUE, lw=2, label="ours")
    right.set(title="distance of the first n views' mean from that of 64 views", xlabel="n")
    right.set(ylabel="relative to the features", xticks=[1, 2, 4, 8, 12, 16], ylim=(0, None))
    right.legend()
    return figure


def _aligned_views(chosen: Views) -> list[torch.Tensor]:
    """Last features of the demo model for every view, in place, without the outermost tokens."""
    model, pixels = demo_model(), _pixels()
    wide = torch.nn.functional.pad(pixels, (8, 8, 8, 8), mode="replicate")
    h, w = (n // PATCH for n in pixels.shape[2:])
    found = []
    with torch.no_grad():
        for dy, dx in chosen.translations:
            view = wide[..., 8 - dy : 8 - dy + h * PATCH, 8 - dx : 8 - dx + w * PATCH]
            a_y = axis_matrices(h, PATCH, PATCH, h, [dy])[0].float()
            a_x = axis_matrices(w, PATCH, PATCH, w, [dx])[0].float()
            found.append((a_y @ model.backbone(view)[-1][0] @ a_x.T)[:, 1:-1, 1:-1])
    return found


def features() -> plt.Figure:
    """Tokens of the demo model, its features with SRT, and what its head makes of them."""
    from srt_plugins import attach, detach

    scene = Scenes("val")[SCENE]
    model, pixels = demo_model(), _pixels()
    rows = []
    with torch.no_grad():
        # No views, and four at a quarter of the stride, along the image: docs/settings.md.
        for settings in (dict(level=0), dict(smooth="guided:0.5:0.2", stride=4)):
            attach(model.backbone, **settings)
            maps = model.backbone(pixels)
            rows.append((maps[-1][0], model.decode_head.forward(maps)[0].argmax(0)))
            detach(model.backbone)
    basis = _basis(rows[0][0])
    figure, axes = plt.subplots(2, 3, figsize=(8.6, 4.3), layout="constrained")
    for row, (features_, labels), title in zip(
        axes, rows, ("plain tokens", "four views, cells of 4 pixels")
    ):
        h, w = features_.shape[1:]
        row[1].imshow(_coloured(features_, basis))
        row[1].set_title(f"{title}: {h} x {w}")
        row[2].imshow(np.array(PALETTE)[labels.numpy()], interpolation="nearest")
        right = _accuracy(labels, scene.labels)
        row[2].set_title(f"classes: {right:.1%} of the pixels right")
    axes[0, 0].imshow(scene.image)
    axes[0, 0].set_title(f"scene {SCENE} of the validation split")
    axes[1, 0].imshow(np.array(PALETTE)[scene.labels])
    axes[1, 0].set_title(f"its labels, {len(CLASSES)} classes")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure


def demo_model() -> Any:
    """The shipped segmentor, on the CPU, in eval mode."""
    import srt_plugins.mmseg  # noqa: F401, I001  (before mmseg)
    from mmseg.apis import init_model

    return init_model(str(DEMO / "vit_scenes.py"), str(DEMO / "vit_scenes.pth"), device="cpu")


def _pixels() -> torch.Tensor:
    """The scene as the model gets it, its last patches completed with real pixels."""
    image = torch.from_numpy(Scenes("val")[SCENE].image).permute(2, 0, 1).float()
    mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])[..., None, None]
    rows, columns = (-n % PATCH for n in image.shape[1:])
    image = ((image - mean) / std)[None]
    return torch.nn.functional.pad(image, (0, columns, 0, rows), mode="replicate")


def _basis(grid_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, principal directions, and range of a ``(C, h, w)`` grid, for colours."""
    flat = grid_.flatten(1).T
    mean = flat.mean(0)
    directions = torch.linalg.svd(flat - mean, full_matrices=False)[2][:3].T
    values = (flat - mean) @ directions
    return mean, directions, torch.quantile(values, torch.tensor([0.02, 0.98]), dim=0)


def _coloured(grid_: torch.Tensor, basis: Any) -> np.ndarray:
    mean, directions, (low, high) = basis
    values = (grid_.permute(1, 2, 0) - mean) @ directions
    return ((values - low) / (high - low)).clamp(0, 1).numpy()


def _accuracy(labels: torch.Tensor, truth: np.ndarray) -> float:
    """Share of right pixels, cells enlarged to the padded image without interpolation."""
    h, w = truth.shape
    cell = -(-h // labels.shape[0])
    large = labels.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:h, :w].numpy()
    return float((large == truth).mean())


FIGURES: dict[str, Callable[[], plt.Figure]] = {
    "views": views,
    "alignment": alignment_figure,
    "coverage": coverage,
    "order": order,
    "features": features,
}


def make(names: list[str], folder: Path = FOLDER) -> list[Path]:
    """Draw figures into a folder; returns their paths."""
    paths = []
    for name in names:
        with plt.rc_context(STYLE):
            figure = FIGURES[name]()
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=120)
            plt.close(figure)
        # 256 colours are enough, and a third of the bytes.
        Image.open(paths[-1]).convert("RGB").quantize(256).save(paths[-1], optimize=True)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FIGURES)}; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for path in make(arguments.names or list(FIGURES), arguments.out):
        print(path)
