"""Where a number or a file comes from (every stage): versions, commit, machine and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "sisug",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "torch-fidelity",
    "faiss-cpu",
    "faiss-gpu",
    "kornia",
    "numpy",
    "scipy",
)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on; packages that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with "-dirty" where tracked files were changed.

    None where the package was installed elsewhere, also if some other repository holds that folder.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def machine() -> dict[str, str | int | None]:
    """CPU model, usable cores, GPU model (None without one), number of GPUs and system."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "gpu": torch.cuda.get_device_name(0) if gpus else None,
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
    }


def command_line() -> str:
    """The command of this process, without the folder that the program lies in."""
    program, *arguments = sys.argv or [""]
    name = Path(program)
    if name.name == "__main__.py":  # python -m package
        return shlex.join(["python", "-m", name.parent.name, *arguments])
    return shlex.join([name.name or "python", *arguments])


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
