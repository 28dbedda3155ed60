"""Ensembled forwards whose views two processes share, and one process runs alone."""

from __future__ import annotations

from functools import partial

import torch
from srt_plugins.adapters.structure import tensors

from srt_plugins import SRTWrapper, dispersion
from tests.hub.models import DinoVisionTransformer
from tests.toys import PairBackbone

ODD = (29, 43)  # whole patches on neither axis
EVEN = (24, 40)
# Uneven weights; the second process runs the last two, the centre first.
LATE = [(2, 1, 1.0), (-2, -1, 0.5), (3, -3, 2.0), (0, 0, 3.0), (-1, 3, 1.0)]
# No view is the centre; together they show everything.
AROUND = [(2, 1), (-2, -1), (2, -1), (-2, 1)]
ONE = dict(views=1, smooth=3)


def images(size=ODD, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, 3, *size, generator=generator).to(dtype)


class Attentive(PairBackbone):
    """Returns something that no average is made of, too."""

    def forward(self, x):
        found = super().forward(x)
        return {**found, "brightest": x.flatten(1).argmax(1), "any": x.flatten(1) > 2}


def pair(dtype=torch.float32, batch=2, make=PairBackbone, size=ODD, **keywords):
    """Two grids and a vector."""
    return make().to(dtype).eval(), (), images(size, batch, dtype), keywords


def dino(entry="forward_features", arguments=(), **keywords):
    """Class and register tokens, and patch tokens in several shapes."""
    model = DinoVisionTransformer(num_register_tokens=2).eval()
    return model, (entry, dict(arguments)), images(EVEN), keywords


MAPS = ("get_intermediate_layers", dict(n=[1, 3], reshape=True, return_class_token=True))

CASES = {
    "default": pair,
    "one image": partial(pair, batch=1, views=4),
    "uneven": partial(pair, views=5),
    "weights": partial(pair, views=LATE),
    "grid": partial(pair, level=1),
    "first views": partial(pair, level=2, max_views=7),
    "several at once": partial(pair, views=7, view_batch=3),
    "reflected": partial(pair, views=5, padding="reflect"),
    "smoothed pixels": partial(pair, views=3, stride=1, smooth=3),
    "fewer views than processes": partial(pair, **ONE),
    "dispersion": partial(pair, views=LATE, dispersion=True),
    "whole patches": partial(pair, size=EVEN, views=LATE, dispersion=True),
    "dispersion of one": partial(pair, dispersion=True, **ONE),
    "dispersion on pixels": partial(pair, views=3, dispersion=True, stride=2),
    "median": partial(pair, views=5, statistic="median"),
    "median of one": partial(pair, statistic="median", **ONE),
    "bfloat16": partial(pair, torch.bfloat16, views=5),
    "bfloat16 median": partial(pair, torch.bfloat16, views=5, statistic="median"),
    "float64": partial(pair, torch.float64, views=5, dispersion=True),
    "some outputs": partial(pair, views=LATE, outputs="coarse"),
    "some outputs, no centre": partial(pair, views=AROUND, outputs=["deep"]),
    "some outputs, one view": partial(pair, outputs="coarse", **ONE),
    "no averages": partial(pair, make=Attentive, views=LATE, outputs="coarse"),
    "tokens": partial(dino, views=5),
    "levels": partial(dino, *MAPS, views=5),
    "levels, median": partial(dino, *MAPS, views=3, statistic="median"),
    "layer": partial(dino, views=5, layer=1, dispersion=True),
    "layer of levels": partial(dino, *MAPS, views=5, layer="blocks.2"),
}


@torch.no_grad()
def compute(name, group=None):
    """Every tensor that a case gives, and its dispersions."""
    model, asked, batch, keywords = CASES[name]()
    SRTWrapper(model, group=group, **keywords)
    entry, arguments = asked or ("forward", {})
    output = getattr(model, entry)(batch, **arguments)
    spread = dispersion(model) if keywords.get("dispersion") else ()
    return [*dict(tensors(output)).values(), *spread]
