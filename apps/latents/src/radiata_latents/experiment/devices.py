"""Where to compute: what `--device` means."""

import torch

__all__ = ["device_of"]


def device_of(word: str) -> str:
    """ "auto" is a GPU where there is one; anything else is torch's own name."""
    if word != "auto":
        return word
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
