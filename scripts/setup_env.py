"""Install what the project needs into the environment of the Python that runs this file.

Called by the Makefile. An environment that already holds a torch or an mmcv keeps it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
EXTRAS = "mmseg,timm,transformers,plots,show,demo,docs,dev"
PYTHONS = ((3, 9), (3, 13))  # the pinned torch has wheels for these

# What Detectron2 requires, without the upper bounds of its setup.py (installed with --no-deps).
DETECTRON2_REQUIRES = [
    *("pycocotools", "termcolor", "yacs", "tabulate", "cloudpickle", "tqdm", "tensorboard"),
    *("fvcore", "iopath", "omegaconf", "hydra-core", "black", "packaging", "matplotlib", "pillow"),
]


def pins() -> dict[str, str]:
    """Version of each package in the constraints file."""
    lines = (line.partition("#")[0].partition(";")[0] for line in CONSTRAINTS.open())
    return dict(line.strip().split("==") for line in lines if "==" in line)


def installed(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environ(**extra: str) -> dict[str, str]:
    """The process environment, with this Python's programs (ninja) first on the path."""
    path = sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", "")
    return {**os.environ, "PATH": path, **extra}


def pip(*arguments: str, **env: str) -> None:
    """Run pip of this Python."""
    command = [sys.executable, "-m", "pip", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=environ(**env))


def constraints(folder: Path) -> Path:
    """The tested pins, or, beside another torch than the tested one, just that torch."""
    torch = installed("torch")
    if torch is None or torch.partition("+")[0] == pins()["torch"]:
        return CONSTRAINTS
    print(f"torch {torch} is installed and stays; the tested pins are not applied.")
    kept = folder / "constraints.txt"
    found = {name: installed(name) for name in ("torch", "torchvision")}
    lines = [f"{name}=={version}\n" for name, version in found.items() if version]
    kept.write_text("".join([*lines, "setuptools<80\n", f"mmcv-lite=={pins()['mmcv-lite']}\n"]))
    return kept


def base() -> None:
    """Install torch, the frameworks and this project in editable mode."""
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        low, high = (".".join(map(str, version)) for version in PYTHONS)
        sys.exit(
            f"Python {sys.version.split()[0]} has no wheel of torch {pins()['torch']}. "
            f"Use Python {low} to {high}: make setup BASE_PYTHON=python3.11"
        )
    wanted = ["torch", "torchvision", "-e", f".[{EXTRAS}]"]
    if importlib.util.find_spec("mmcv") is None:  # never put mmcv-lite over another mmcv
        wanted.append("mmcv-lite")
    with tempfile.TemporaryDirectory() as folder:
        limits = ["-c", str(constraints(Path(folder)))]
        pip("install", *limits, "setuptools", "wheel", "ninja")
        pip("install", *limits, "--no-build-isolation", *wanted)


def same_wheel(name: str, wheel: Path) -> bool:
    """Whether a distribution was installed from this very wheel."""
    if installed(name) is None or not wheel.is_file():
        return False
    record = metadata.distribution(name).read_text("direct_url.json")
    found = json.loads(record or "{}")
    digest = found.get("archive_info", {}).get("hashes", {}).get("sha256")
    return digest is not None and digest == hashlib.sha256(wheel.read_bytes()).hexdigest()


def detectron2(source: str) -> None:
    """Install what Detectron2 needs, then itself from a wheel or a checkout."""
    if not Path(source).expanduser().exists():
        sys.exit(f"DETECTRON2={source} does not exist; give the path of a wheel or a checkout.")
    path = Path(source).expanduser().resolve()
    if same_wheel("detectron2", path):
        return
    with tempfile.TemporaryDirectory() as folder:
        limits = ["-c", str(constraints(Path(folder)))]
        pip("install", *limits, "--no-build-isolation", *DETECTRON2_REQUIRES)
    # Another build has the same version: without --force-reinstall pip would keep the old one.
    pip("install", "--no-build-isolation", "--no-deps", "--force-reinstall", str(path))


def full_mmcv(target: Path, wheels: Path, wheel: Path | None, jobs: int) -> None:
    """Build mmcv with its ops against the installed torch and put it into a folder of its own.

    On PYTHONPATH that folder goes before the environment's mmcv-lite. A wheel is built once for
    each torch, device and Python, and kept.
    """
    import torch

    if wheel is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        cache = wheels / f"torch{torch.__version__}-{device}-{sys.implementation.cache_tag}"
        if not any(cache.glob("mmcv-*.whl")):
            options = ["--no-deps", "--no-build-isolation", "--no-binary", "mmcv"]
            # pip's own cache keys a built wheel by version only, whatever torch it was built for.
            options += ["--no-cache-dir", "--wheel-dir", str(cache)]
            requirement = f"mmcv=={pins()['mmcv']}"
            # Debug symbols, which Python's own flags ask for, take more than half of the time.
            flags = f"{os.environ.get('CPPFLAGS', '')} -g0".strip()
            build = {"MMCV_WITH_OPS": "1", "MAX_JOBS": str(jobs), "CPPFLAGS": flags}
            pip("wheel", *options, requirement, **build)
        wheel = next(cache.glob("mmcv-*.whl"))
    elif not wheel.is_file():
        sys.exit(f"MMCV_WHEEL={wheel} does not exist.")
    pip("install", "--no-deps", "--upgrade", "--target", str(target), str(wheel.resolve()))
    check = "import torch, mmcv._ext as ext; print('compiled ops:', ext.__file__)"
    env = environ(PYTHONPATH=str(target.resolve()))
    if subprocess.run([sys.executable, "-c", check], env=env).returncode:
        sys.exit(f"{wheel} does not load with torch {torch.__version__}; delete it and try again.")


def main() -> None:
    """Parse the command line and install."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("base", help="torch, frameworks, this project")
    command = commands.add_parser("detectron2", help="Detectron2 from a wheel or a checkout")
    command.add_argument("source")
    command = commands.add_parser("full-mmcv", help="mmcv with compiled ops, in its own folder")
    command.add_argument("--target", type=Path, required=True, help="folder for PYTHONPATH")
    command.add_argument("--wheels", type=Path, required=True, help="folder that keeps wheels")
    command.add_argument("--wheel", type=Path, help="use this wheel, build none")
    command.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    try:
        if arguments.command == "base":
            base()
        elif arguments.command == "detectron2":
            detectron2(arguments.source)
        else:
            full_mmcv(arguments.target, arguments.wheels, arguments.wheel, arguments.jobs)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Failed: {' '.join(map(str, error.cmd))}")


if __name__ == "__main__":
    main()
