"""DINOv2's vision transformers as a backbone of MMSegmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError, MissingDependencyError, nearest
from .dinov2_weights import SIZES, check_fits, from_dinov2, read_backbone

VisionTransformer: Any
try:
    from timm.models.vision_transformer import VisionTransformer
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "timm":
        raise
    VisionTransformer = None  # the type is registered all the same; building it says what to do


@MODELS.register_module()
class DINOv2(VisionTransformer or nn.Module):  # type: ignore[misc]
    """timm's ViT with DINOv2's weights, position table and outputs.

    ``DINOv2("vits14", checkpoint=".../dinov2_vits14_pretrain.pth")`` gives the features that the
    released model gives. (Oquab et al.: *DINOv2: Learning Robust Visual Features without
    Supervision*, TMLR 2024; Darcet et al.: *Vision Transformers Need Registers*, ICLR 2024.)

    Modifications: the released checkpoints load by key, under their own names; the position table
    has a row for the class token and is interpolated as DINOv2 does it (with registers:
    anti-aliased, to a size; without: by a scale factor that is 0.1 patch too large); ``forward``
    returns feature maps.

    Args:
        arch: ``"vits14"``, ``"vitb14"``, ``"vitl14"``, ``"vitg14"``, or None for a model of one's
            own size, given by ``embed_dim``, ``depth``, ``num_heads`` and ``swiglu``.
        registers: register tokens; 4 in the released ``_reg4`` checkpoints.
        out_indices: blocks whose outputs are returned, in the order of the blocks; negative ones
            count from the last.
        output_cls_token: return ``[map, class token]`` in place of each map.
        final_norm: apply the last norm to every output. DINOv2's segmentation heads were trained
            on normed features, its depth heads on features without it.
        checkpoint: file or URL of backbone weights, loaded here. MMEngine's test loop runs no
            ``init_cfg``; with this, a head's checkpoint alone makes the model whole.
        pad: complete partial patches with zeros on both sides, as DINOv2's depth models do. The
            maps then cover a little more than the image. Otherwise sizes must be multiples of the
            patch: let the data preprocessor do it, ``test_cfg=dict(size_divisor=14)``.
        frozen_stages: -1 trains everything; n freezes the embedding and the first n blocks, and
            the depth of the model everything, the last norm included.
        img_size: pixels per side of the (square) position table.
        **keywords: those of timm's ``VisionTransformer`` (``drop_path_rate``, ...).

    Shapes: ``(B, 3, H, W)`` gives a tuple of ``(B, C, ceil(H / 14), ceil(W / 14))`` maps, with
    ``output_cls_token`` of lists with those and ``(B, C)`` class tokens.

    Raises:
        ConfigError: unknown ``arch``, an output or stage that does not exist, or an image size
            that is no multiple of the patch without ``pad``.
        CheckpointError: the checkpoint does not fit, key by key.
        MissingDependencyError: timm is not installed.
    """

    is_init = False  # whether weights were loaded: MMEngine must not initialise them again

    def __init__(
        self,
        arch: str | None = "vits14",
        registers: int = 0,
        out_indices: Sequence[int] = (-1,),
        output_cls_token: bool = False,
        final_norm: bool = True,
        checkpoint: str | Path | None = None,
        pad: bool = False,
        frozen_stages: int = -1,
        img_size: int = 518,
        patch_size: int = 14,
        **keywords: Any,
    ) -> None:
        if VisionTransformer is None:
            raise MissingDependencyError(
                "DINOv2 is built on timm's vision transformer, and timm is not installed:\n"
                '  pip install "srt-plugins[timm]"'
            )
        if arch is not None and arch not in SIZES:
            raise ConfigError(
                f"Expected arch to be one of {nearest(str(arch), SIZES)} or None, got {arch!r}."
            )
        size: dict[str, Any] = {**SIZES[arch], **keywords} if arch else dict(keywords)
        if size.pop("swiglu", False):
            size.update(_swiglu(size.setdefault("embed_dim", 768)))
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=0,
            init_values=1.0,
            reg_tokens=registers,
            no_embed_class=True,
            dynamic_img_size=True,
            **size,
        )
        rows = 1 + self.patch_embed.num_patches
        self.pos_embed = nn.Parameter(torch.zeros(1, rows, self.embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.output_cls_token = output_cls_token
        self.final_norm = final_norm
        self.pad = pad
        depth = len(self.blocks)
        self.out_indices = tuple(sorted({i + depth if i < 0 else i for i in out_indices}))
        if not out_indices or not all(0 <= i < depth for i in self.out_indices):
            raise ConfigError(
                f"Expected out_indices to name some of the {depth} blocks, got {out_indices}."
            )
        if not -1 <= frozen_stages <= depth:
            raise ConfigError(f"Expected frozen_stages in -1 .. {depth}, got {frozen_stages}.")
        self.frozen_stages = frozen_stages
        if checkpoint is not None:
            self.load_checkpoint(checkpoint)
        self._freeze()

    def load_checkpoint(self, source: str | Path) -> None:
        """Load backbone weights from a file or URL; see ``checkpoint`` above."""
        state = read_backbone(source)
        check_fits(state, self.state_dict(), source)
        self.load_state_dict(state)
        self.is_init = True

    def init_weights(self, *args: Any, **kwargs: Any) -> None:
        """Draw random weights, unless a checkpoint brought some."""
        if not self.is_init:
            super().init_weights(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kw: Any) -> None:
        if self.is_init and not any(key.startswith(prefix) for key in state_dict):
            # A head's checkpoint: nothing is missing, and the logs shall not say so.
            state_dict.update({prefix + key: value for key, value in self.state_dict().items()})
        from_dinov2(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kw)

    def forward(self, x: Tensor) -> tuple:
        """Feature maps of the blocks in ``out_indices``; see the class docstring."""
        features = self.forward_intermediates(
            self._complete(x),
            indices=list(self.out_indices),
            return_prefix_tokens=True,
            norm=self.final_norm,
            stop_early=True,
            intermediates_only=True,
        )
        if self.output_cls_token:
            return tuple([grid, prefix[:, 0]] for grid, prefix in features)
        return tuple(grid for grid, _ in features)

    def train(self, mode: bool = True) -> DINOv2:
        """Training mode, in which frozen blocks stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen: list[nn.Module] = [self.patch_embed, *self.blocks[: self.frozen_stages]]
        tokens = [self.cls_token, self.pos_embed, self.reg_token]
        if self.frozen_stages == len(self.blocks):
            frozen.append(self.norm)
        for module in frozen:
            module.eval()
        for parameter in [p for m in frozen for p in m.parameters()] + tokens:
            if parameter is not None:
                parameter.requires_grad_(False)

    def _complete(self, x: Tensor) -> Tensor:
        """Zeros around an image, up to whole patches; one more at the end where they are odd."""
        patch = self.patch_embed.patch_size
        missing = [-n % p for n, p in zip(x.shape[-2:], patch)]
        if not any(missing):
            return x
        if not self.pad:
            raise ConfigError(
                f"Expected an image of whole patches of {patch[0]} x {patch[1]} pixels, got "
                f"{tuple(x.shape[-2:])}. Set pad=True, or let the data preprocessor complete it: "
                f"test_cfg=dict(size_divisor={patch[0]})."
            )
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in missing)
        return F.pad(x, (left, right, top, bottom))

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Add positions to ``(B, h, w, C)`` patches; class and register tokens go in front."""
        batch, height, width, _ = x.shape
        table = self._table(height, width).to(x.dtype)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), x.flatten(1, 2)], 1) + table
        if self.reg_token is not None:  # registers have no position
            registers = self.reg_token.expand(batch, -1, -1).to(tokens.dtype)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        return self.pos_drop(tokens)

    def _table(self, height: int, width: int) -> Tensor:
        """The position table for a token grid, ``(1, 1 + height * width, C)``."""
        side = self.patch_embed.grid_size[0]
        if (height, width) == (side, side):
            return self.pos_embed
        class_row, rows = self.pos_embed.float().split([1, side * side], 1)
        grid = rows.transpose(1, 2).unflatten(2, (side, side))
        if self.reg_token is None:
            # The released models without registers were trained with a scale factor that is 0.1
            # patch too large, so as to be safe from rounding; it moves the samples a little.
            scale = ((height + 0.1) / side, (width + 0.1) / side)
            grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        else:
            grid = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True)
        return torch.cat([class_row, grid.flatten(2).transpose(1, 2)], 1)


def _swiglu(width: int) -> dict[str, Any]:
    """The keywords of timm that make DINOv2's gated feed-forward, 8/3 as wide as the model."""
    from timm.layers.mlp import SwiGLUPacked

    hidden = -(-(width * 8 // 3) // 8) * 8
    # timm counts the gate too, and rounds down.
    ratio = (2 * hidden + 0.5) / width
    return dict(mlp_layer=SwiGLUPacked, mlp_ratio=ratio, act_layer=nn.SiLU)
