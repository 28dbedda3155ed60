"""Which form the outputs of transformers' models have, by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from srt_plugins.adapters.form import Form
from srt_plugins.adapters.outputs import BySize, Call, Size
from srt_plugins.adapters.structure import Path, summary
from torch import Tensor

from srt_plugins.errors import AdapterError


@dataclass(frozen=True)
class Named(BySize):
    """Outputs recognised by size, of which the names tell more.

    Attributes:
        roles: the layout of outputs of some names, or several, the likelier first;
            ``"unordered"`` = tokens that are not in raster order, of which no grid can be made.
        exact: strides of the tensors of an output of some names, in order. A model that resizes
            images by itself is found out by them, where its grids would fit other strides.
        completes: True = the backbone completes partial patches, False = it leaves them out,
            None = not known.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    exact: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    completes: bool | None = False

    def layouts_of(self, path: Path, call: Call) -> tuple[str, ...]:
        """The layout of that name, or every one."""
        role = self.roles.get(_name(path))
        return tuple(role.split()) if role else super().layouts_of(path, call)

    def _form(self, path: Path, tensor: Tensor, call: Call) -> Form:
        role = self.roles.get(_name(path))
        if role == "unordered":
            raise AdapterError(
                f"Expected tokens in raster order, but {call.family} returns others as "
                f"{_name(path)!r}. Do not ask it for them, or name the outputs to ensemble with "
                "outputs=; the others then come from the centre view."
            )
        if role == "vector" and tensor.is_floating_point():
            return Form("vector")
        narrowed = replace(self, strides=self._strides(path, call))
        return super(Named, narrowed)._form(path, tensor, call)

    def _strides(self, path: Path, call: Call) -> tuple[int, ...]:
        exact = self.exact.get(_name(path))
        if exact is None:
            return self.strides
        index = path[1] if len(path) > 1 else 0
        if isinstance(index, int) and index < len(exact):
            return (exact[index],)
        raise AdapterError(
            f"Expected {call.family} to return {len(exact)} tensors as {_name(path)!r}, as its "
            f"settings were when it was wrapped, got {summary(call.output)}. Wrap it again."
        )

    def _grids(self, size: Size) -> Iterator[tuple[int, Size]]:
        if self.completes is None:
            yield from super()._grids(size)
            return
        for s in self.strides:
            if self.completes or min(size) >= s:
                up = s - 1 if self.completes else 0
                yield s, ((size[0] + up) // s, (size[1] + up) // s)


def _name(path: Path) -> str:
    return str(path[0]) if path else ""
