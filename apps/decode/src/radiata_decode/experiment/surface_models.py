"""A trained decoder of the cortex from its run folder, with all that is needed to use it.

model.safetensors + model.json    the decoder; its card has the canvas, the stage, whose data, the picture's shape
basis.safetensors + basis.json    of the guess, where there is one
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_decode.data.flat_map import Canvas
from radiata_decode.model.surface_decoder import SurfaceDecoder

__all__ = ["LoadedSurface", "load_surface"]


@dataclass(frozen=True)
class LoadedSurface:
    """A decoder from its run folder.

    Attributes:
        decoder: In evaluation mode.
        canvas: That its people were on.
        metadata: Its card.
        sha256: Of its weights.
    """

    decoder: SurfaceDecoder
    canvas: Canvas
    metadata: dict[str, Any]
    sha256: str


def load_surface(folder: Path) -> LoadedSurface:
    """The decoder of a run of stage 2 or 3.

    Raises:
        InputError: no such model, or one of another kind.
    """
    folder = Path(folder)
    loaded = load_model(folder)
    if not isinstance(loaded.denoiser, SurfaceDecoder):
        raise InputError(
            f"expected a decoder of the cortex in {folder}; got a {type(loaded.denoiser).__name__}. "
            "Name the run of stage 2 or 3."
        )
    canvas = Canvas.from_card(loaded.metadata.get("canvas", {}))
    return LoadedSurface(loaded.denoiser, canvas, loaded.metadata, loaded.sha256)
