"""Named tensors in one safetensors file: numbers only, nothing a file could make run.

Reading checks the container before anything is built from it; a pickle is refused by its suffix and by its first bytes.
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign

__all__ = ["read_tensors", "write_tensors"]

_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}
_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors to `path` (not atomic by itself: give it a path from `atomic_path` or `atomic_folder`).

    Raises:
        OSError: the disk is full (ENOSPC), whatever the library calls it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Own memory for each: the format has no notion of tied or strided tensors.
    separate = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        save_file(separate, path)
    except SafetensorError as error:
        if "os error 28" in str(error) or "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise OSError(errno.EIO, str(error), str(path)) from None


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        InputError: no such file, an empty or truncated one, a pickle, or another format.
    """
    from safetensors.torch import load_file

    path = Path(path)
    if path.is_dir():
        raise InputError(
            f"expected a weights file (.safetensors); got the folder {path}. Name a file inside it."
        )
    if not path.exists():
        raise InputError(
            f"expected a weights file (.safetensors) at {path}; got nothing there. Check the path."
        )
    with path.open("rb") as stream:
        start = stream.read(4)
    if path.suffix.lower() in _PICKLES or start.startswith(_MAGIC):
        raise InputError(
            f"expected safetensors weights; got {path}, a pickle, which could run code. "
            "Bring it over once with radiata-t1 convert."
        )
    if not start:
        raise InputError(f"expected safetensors weights; got {path} with 0 bytes. Copy or download it again.")
    with foreign(
        f"expected safetensors weights; got {path}, truncated or of another format",
        "Copy or download it again.",
    ):
        return load_file(path)
