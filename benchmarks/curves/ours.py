"""SRT's rows, and the controls that cost one forward."""

from __future__ import annotations

from .points import FEW, KERNELS, PER_AXIS, Point, label, srt

COUNTS = (2, 3, 4, 6, 8, 9, 12, 16)


def controls(c):
    made = []
    for stride in c.strides:
        for smooth in (None, *KERNELS, 7, *c.guided, *c.more_guided):
            if smooth is None and stride is None:
                continue  # the plain model
            what = label(smooth, stride)
            active = srt(views=[(0, 0)], smooth=smooth, stride=stride)
            kind = "guided" if isinstance(smooth, str) else "blind"
            made.append(Point(f"1x{what}", "controls", f"SRT{what}", 1, active, kind))
    return made


def _phases(c, group, name, counts, smooths, **keywords):
    made = []
    for stride in c.strides:
        for smooth in smooths:
            what = label(smooth, stride)
            for n in counts:
                views = dict(views=f"phases:{PER_AXIS}", max_views=n, **keywords)
                active = srt(smooth=smooth, stride=stride, **views)
                made.append(Point(f"{name}, {n} views{what}", group, f"{name}{what}", n, active))
    return made


def nested(c):
    return _phases(c, "srt", "SRT", COUNTS, (None, *KERNELS, *c.guided))


def mirrored(c):
    smooths = (None, *KERNELS, *c.guided[:1])
    return _phases(c, "mirrored", "SRT mirrored", FEW, smooths, flip=True)


def padded(c):
    return [
        Point(
            f"SRT, 4 views, {padding} padding",
            "padding",
            f"SRT, {padding} padding",
            4,
            srt(padding=padding),
        )
        for padding in ("reflect", "zeros")
    ]


def layers(c):
    return [
        Point(
            f"SRT, 4 views, after block {i + 1} of {c.blocks}",
            "layer",
            "SRT after a block",
            4,
            srt(layer=i),
        )
        for i in range(1, c.blocks, 2)
    ]
