"""Where a result came from: versions, commit, machine. Never fails, never imports what is not imported already."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["peak_memory_mib", "provenance"]

_PACKAGES = (
    "radiata",
    "radiata-core",
    "radiata-imaging",
    "radiata-t1",
    "radiata-medical",
    "radiata-decode",
    "radiata-latents",
    "torch",
    "numpy",
    "scipy",
    "monai",
    "nibabel",
    "accelerate",
    "safetensors",
)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve()
    try:
        answer = subprocess.run(
            ["git", "-C", str(here.parent), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _commit() -> dict[str, Any] | None:
    """Commit and dirty flag, only where this very file is tracked: a virtual environment inside somebody's own
    repository must not report theirs."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)} if commit else None


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"{torch.cuda.get_device_name()} (cuda)"
    return f"{platform.processor() or platform.machine()} (cpu)"


def provenance() -> dict[str, Any]:
    """Versions, git commit (None outside a checkout), device and threads, as plain JSON.

    Nothing that names a person or a host. torch is asked for its device and threads only if it is already imported.
    """
    torch = sys.modules.get("torch")
    return {
        "versions": {"python": platform.python_version()}
        | {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "git": _commit(),
        "platform": platform.platform(),
        "device": _device(),
        "threads": torch.get_num_threads() if torch is not None else os.cpu_count(),
    }


def peak_memory_mib() -> dict[str, float]:
    """Largest resident memory of this process so far, MiB, and that of the GPU allocator where one was used."""
    try:
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = {"process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    except ImportError:  # Windows
        import psutil

        peak = {"process": round(psutil.Process().memory_info().peak_wset / 2**20, 1)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peak
