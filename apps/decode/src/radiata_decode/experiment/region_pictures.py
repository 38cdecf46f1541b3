"""Pictures that regions of the brain drive: directions of the decoder's weights, shown by the codec and by a generator."""

from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError
from radiata_decode.data.decoded import Decoded
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.image_codecs import codec_of
from radiata_decode.experiment.image_decoding import Drawing, bytes_of, condition_of, draw_pictures
from radiata_decode.experiment.trained_models import ModelCard
from radiata_decode.model.image_decoder import ImageDecoder
from radiata_decode.model.roi_synthesis import roi_latents

if TYPE_CHECKING:
    from radiata_decode.experiment.synthesize import Synthesize

__all__ = ["region_pictures"]


def region_pictures(subject: Subject, card: ModelCard, task: "Synthesize") -> Decoded:
    """A row a region, in the order asked for.

    Raises:
        InputError: a region that the subject has not, or none of whose voxels the model reads.
    """
    voxels, known = card.voxels_of(subject), subject.rois
    names = task.rois or tuple(known)
    if not names:
        raise InputError(f"expected regions in {subject.folder / 'voxels.tsv'} (columns roi_NAME); got none.")
    masks: dict[str, np.ndarray] = {}
    for name in names:
        if name not in known:
            raise InputError(f"expected a region of {subject.folder} ({', '.join(known)}); got {name}.")
        masks[name] = known[name][voxels].astype(np.float32)
        if not masks[name].any():
            raise InputError(
                f"expected voxels of {name} among those the model reads; got none. Leave it out."
            )
    decoder, codec = ImageDecoder.load(card.folder), codec_of(card)
    found = roi_latents(decoder, masks, gain=task.gain, amplitude=-1.0 if task.silence else 1.0)
    arrays: dict[str, Any] = {"low_level": bytes_of(codec.decode(found.low_level))}
    if task.generator == "none":
        arrays["images"] = arrays["low_level"]
    else:
        arrays |= draw_pictures(condition_of(found, codec), list(names), Drawing.of(task))
    return Decoded(list(names), arrays, "image", "regions")
