"""Lets MMSegmentation run on ``mmcv-lite``, which ships without compiled ops.

``import mmseg.models`` imports ``mmcv.ops``, and that fails when ``mmcv._ext`` is missing, even for
models that never call a compiled op. A placeholder ``mmcv._ext`` lets the import pass; an op says
what is missing once it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, NoReturn

from ..errors import MissingDependencyError, SRTError

# The range that MMSegmentation 1.x accepts.
MMCV_MIN, MMCV_BELOW = "2.0.0rc4", "2.2.0"

EXT = "mmcv._ext"

LITE_HELP = "pip install mmcv-lite==2.1.0"
# --no-cache-dir: pip caches a wheel that it built by version only, whatever torch it was built for.
FULL_HELP = (
    "pip uninstall -y mmcv mmcv-lite; "
    'pip install "setuptools<80" wheel ninja; '
    "MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --no-binary mmcv mmcv==2.1.0"
)


class MissingOpError(SRTError, RuntimeError):
    """A compiled mmcv op was called, but the installed mmcv has none."""


class OpsPlaceholder(ModuleType):
    """Stands in for ``mmcv._ext``: every public attribute is an op that raises when called.

    ``mmcv.ops`` looks its ops up by name at import, so the look-up must succeed. The spec has no
    loader, which ``mmcv.utils.check_ops_exist`` and ``mmengine`` read as "no compiled ops".
    """

    def __init__(self) -> None:
        super().__init__(EXT, "Placeholder for the compiled ops of mmcv.")
        self.__spec__ = ModuleSpec(EXT, loader=None, origin="placeholder by srt_plugins")

    # Environment reports (`mmcv.utils.collect_env`) call these two; mmcv itself answers
    # "not available" for what it was built without.
    def get_compiler_version(self) -> str:
        """The compiler of the ops: none."""
        return "not available"

    def get_compiling_cuda_version(self) -> str:
        """The CUDA version of the ops: none."""
        return "not available"

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        # Private names are what Python's own machinery probes for (__file__, __path__, ...).
        if name.startswith("_"):
            raise AttributeError(f"module {EXT!r} has no attribute {name!r}")

        def op(*args: Any, **kwargs: Any) -> NoReturn:
            raise MissingOpError(
                f"The op {name!r} of mmcv was called, but the installed mmcv has no compiled ops "
                "(mmcv-lite). Use a model without it, or install the full mmcv, built against "
                f"this torch (some 10 minutes):\n  {FULL_HELP}"
            )

        op.__name__ = op.__qualname__ = name
        op.__module__ = EXT
        setattr(self, name, op)  # the same object at every look-up
        return op


def install_placeholder() -> bool:
    """Make ``mmcv.ops`` importable; call before ``mmseg.models`` is imported.

    A full mmcv is left exactly as it is. Calling again changes nothing.

    Returns:
        Whether the placeholder stands in for the compiled ops.

    Raises:
        MissingDependencyError: mmcv is not installed, is outside the versions MMSegmentation 1.x
            accepts, or has compiled ops that do not load (built against another torch).
    """
    mmcv = _import_mmcv()
    if isinstance(sys.modules.get(EXT), OpsPlaceholder):
        return True
    if importlib.util.find_spec(EXT) is not None:
        try:
            importlib.import_module(EXT)
        except ImportError as error:
            raise MissingDependencyError(
                f"The compiled ops of mmcv {mmcv.__version__} do not load: {error}. They were "
                "most likely built against another torch. Build them against this one:\n  "
                f"{FULL_HELP}\nor do without:\n  "
                f"pip uninstall -y mmcv; {LITE_HELP}"
            ) from error
        return False
    placeholder = OpsPlaceholder()
    sys.modules[EXT] = placeholder
    mmcv._ext = placeholder
    return True


def _import_mmcv() -> Any:
    """Import mmcv and check its version."""
    try:
        mmcv = importlib.import_module("mmcv")
    except ModuleNotFoundError as error:
        if error.name != "mmcv":
            raise
        raise MissingDependencyError(
            "MMSegmentation needs mmcv, which is not installed. Without compiled ops (enough for "
            f"most models):\n  {LITE_HELP}\nor with them, built against this torch:\n  {FULL_HELP}"
        ) from error
    from packaging.version import Version  # a dependency of mmcv

    if not Version(MMCV_MIN) <= Version(mmcv.__version__) < Version(MMCV_BELOW):
        raise MissingDependencyError(
            f"mmcv {mmcv.__version__} is installed, but MMSegmentation 1.x needs "
            f"mmcv>={MMCV_MIN},<{MMCV_BELOW}. Replace it:\n"
            f"  pip uninstall -y mmcv mmcv-full; {LITE_HELP}\n"
            f"or, with compiled ops:\n  pip uninstall -y mmcv-full; {FULL_HELP}"
        )
    return mmcv
