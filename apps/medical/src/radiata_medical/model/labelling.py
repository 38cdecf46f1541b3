"""What the channels of a segmenter mean: codes, names, which is whose mirror image, and which make up the brain.

A table that networks and their programs are handed, so that neither knows the structures of the other
(`radiata_medical.experiment.segmenting_tables` makes those of the application).
"""

from dataclasses import dataclass

from radiata_core.errors import InputError

__all__ = ["Labelling"]


@dataclass(frozen=True)
class Labelling:
    """What the channels of a segmenter mean.

    Attributes:
        codes: Code of each channel; channel 0 is the background, code 0.
        names: Of each channel.
        flipped: Channels of the mirrored head: channel i of it is channel `flipped[i]` of the head.
        brain: Channels whose largest connected piece is kept, and which `intracranial_ml` sums; may be empty.

    Raises:
        InputError: lengths differ, or the flip is no exchange of channels.
    """

    codes: tuple[int, ...]
    names: tuple[str, ...]
    flipped: tuple[int, ...]
    brain: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.codes)
        twice = [self.flipped[i] for i in self.flipped if i < len(self.flipped)]
        if len(self.names) != count or twice != list(range(count)):
            raise InputError(
                f"expected a name and a mirror channel for each of {count} codes; got {len(self.names)} names and "
                f"mirror channels {self.flipped}."
            )
