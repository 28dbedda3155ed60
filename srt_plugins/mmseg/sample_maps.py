"""Maps that take the way of a segmentor's logits into its data samples.

While a segmentor predicts, what the backbone's views disagree by at each ``encode_decode`` is kept.
``inference`` then runs once more with these maps in place of logits, and so does
``postprocess_result``: windows, flips, padding and resizing are the segmentor's own code, and cost
no forward of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mmengine.structures import PixelData
from mmseg.models.segmentors import DepthEstimator, EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..core.patch import overridden
from ..uncertainty import combined, off, output_spread

DISPERSION, DEPTH_STD = "srt_dispersion", "srt_depth_std"
# The methods of a segmentor that maps go through.
METHODS = ("inference", "encode_decode", "postprocess_result")


class Prediction:
    """One ``predict`` of a segmentor, in which maps take the way of logits.

    Args:
        segmentor: predicts.
        part: of it, whose views' dispersion is kept.
        depth_std: also take the standard deviation of depth over views.
    """

    def __init__(self, segmentor: Any, part: Any, depth_std: bool) -> None:
        self.segmentor = segmentor
        self.part = part
        self.depth_std = depth_std
        self.plain = {name: getattr(segmentor, name) for name in METHODS}
        self.seen: list[Tensor | None] = []
        self.found: dict[str, Tensor] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """While active, the segmentor's methods are those of this."""
        with ExitStack() as stack:
            for name in METHODS:
                stack.enter_context(overridden(self.segmentor, name, getattr(self, name)))
            yield

    def encode_decode(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The segmentor's own; keeps what the views disagreed by."""
        logits: Tensor = self.plain["encode_decode"](inputs, *args, **kwargs)
        maps, size = read_maps(self.segmentor, self.part), (logits.shape[-2], logits.shape[-1])
        self.seen.append(combined(maps, size, self.segmentor.align_corners) if maps else None)
        return logits

    def inference(self, inputs: Tensor, batch_img_metas: list, *args: Any, **kwargs: Any) -> Tensor:
        """The segmentor's own, then once more with maps in place of logits."""
        self.seen, self.found = [], {}
        # Slide mode writes each window's size into the metas that it is given.
        metas = [dict(meta) for meta in batch_img_metas]
        logits: Tensor = self.plain["inference"](inputs, batch_img_metas, *args, **kwargs)
        seen, self.seen = self.seen, []
        if seen and all(one is not None for one in seen):
            self.found[DISPERSION] = self._replayed(seen, inputs, metas, logits.shape[1])
        if self.depth_std:
            self.found[DEPTH_STD] = self._depth_std(inputs, metas)
        return logits

    def _replayed(self, seen: Sequence[Any], inputs: Tensor, metas: list, channels: int) -> Tensor:
        """What inference makes of maps in place of logits, ``(B, 1, H, W)``."""
        maps = iter(seen)
        with ExitStack() as stack:
            if _is_stock(type(self.segmentor)):
                channels = 1
                stack.enter_context(overridden(self.segmentor, "out_channels", 1))

            def replay(*_: Any, **__: Any) -> Tensor:
                return next(maps).expand(-1, channels, -1, -1)

            stack.enter_context(overridden(self.segmentor, "encode_decode", replay))
            return self.plain["inference"](inputs.float(), metas)[:, :1]

    def _depth_std(self, inputs: Tensor, metas: list) -> Tensor:
        """The standard deviation over views of what inference returns, ``(B, 1, H, W)``."""
        state = self.part._srt
        settings, batch = state.settings, len(inputs)

        def run(chunk: Tensor) -> Tensor:
            copies = [dict(meta) for meta in metas * (len(chunk) // batch)]
            depth: Tensor = self.plain["inference"](chunk, copies)
            return depth

        views, plain = state.views(), self.plain["encode_decode"]
        with overridden(self.segmentor, "encode_decode", plain), off(self.segmentor):
            return output_spread(run, inputs, views, settings.padding, settings.view_batch)

    def postprocess_result(self, result: Tensor, data_samples: Any = None) -> Any:
        """The segmentor's own, then once more for each map."""
        plain = self.plain["postprocess_result"]
        samples = plain(result, data_samples)
        for name, maps in self.found.items():
            _hand_over(plain, name, maps, samples, data_samples)
        return samples


def read_maps(segmentor: Any, part: Any) -> tuple[Tensor, ...]:
    """Dispersion of the feature maps that the decode head reads: those of its ``in_index``, or all
    where a neck, ``layer=`` or ``outputs=`` lies in between.
    """
    maps: tuple[Tensor, ...] = part._srt.dispersion
    settings, head = part._srt.settings, segmentor.decode_head
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    wanted = getattr(head, "in_index", None)
    whole = part is segmentor.backbone and not segmentor.with_neck
    if not whole or settings.layer is not None or settings.outputs is not None or wanted is None:
        return maps
    chosen = [wanted] if isinstance(wanted, int) else list(wanted)
    if not all(-len(maps) <= index < len(maps) for index in chosen):
        return maps
    return tuple(maps[index] for index in chosen)


@contextmanager
def placed_in_samples(segmentor: Any, maps: list[Tensor]) -> Iterator[None]:
    """While active, samples get ``srt_dispersion`` from maps that someone else makes.

    Args:
        segmentor: of MMSegmentation.
        maps: when results are processed, one map ``(B, 1, H, W)`` in the size of logits, which is
            taken out, or none.
    """
    plain = segmentor.postprocess_result

    def postprocess_result(result: Tensor, data_samples: Any = None) -> Any:
        samples = plain(result, data_samples)
        if maps:
            _hand_over(plain, DISPERSION, maps.pop(), samples, data_samples)
        return samples

    with overridden(segmentor, "postprocess_result", postprocess_result):
        yield


def _hand_over(postprocess: Any, name: str, maps: Tensor, samples: Any, given: Any) -> None:
    for sample, one in zip(samples, _placed(postprocess, maps, given)):
        sample.set_data({name: PixelData(data=one)})


def _placed(postprocess: Any, maps: Tensor, samples: Any) -> list[Tensor]:
    """Maps ``(B, 1, H, W)`` as logits are put into samples, ``(1, H', W')`` each."""
    copies = None if samples is None else [SegDataSample(metainfo=s.metainfo) for s in samples]
    # Two channels: a single one would go through a sigmoid.
    made = postprocess(maps.float().expand(-1, 2, -1, -1), copies)
    key = "seg_logits" if "seg_logits" in made[0] else "pred_depth_map"
    return [sample.get(key).data[:1].clone() for sample in made]


def _is_stock(kind: type) -> bool:
    """Whether inference of a class makes room for ``out_channels``, as MMSegmentation's does."""
    names = ("inference", "whole_inference", "slide_inference", "slide_flip_inference")
    return all(
        getattr(kind, name, None)
        in (None, getattr(EncoderDecoder, name, None), getattr(DepthEstimator, name, None))
        for name in names
    )
