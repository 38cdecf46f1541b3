"""Every reader of the house: how a valid file of it is made, how it is read, which files are mutated."""

from readers_decode import READERS as DECODE
from readers_imaging import READERS as IMAGING
from readers_latents import READERS as LATENTS
from readers_medical import READERS as MEDICAL
from readers_models import READERS as MODELS

__all__ = ["READERS"]

READERS = (*IMAGING, *MODELS, *LATENTS, *MEDICAL, *DECODE)
