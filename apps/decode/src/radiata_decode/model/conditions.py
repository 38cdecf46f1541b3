"""What a generator is told, and what a generator is: one small protocol for pretrained pipelines and for our own.

A `Condition` holds whatever was predicted from the brain, batch first, float32; a generator takes what it knows and refuses
what it lacks. Pictures are RGB in [0, 1], (n, 3, y, x); flow is in pixels a frame step on its own grid, component 0 to the
right, 1 downward.

| part | shape | for |
|---|---|---|
| init_image | (n, 3, y, x) | img2img, our own generator |
| init_latents | (n, d) | our own generator: components of the picture basis |
| reliability | (d,) | leave-one-out R2 of the latents, 0 to 1 |
| prompt_embeds, negative_prompt_embeds | (n, T, D) | text context |
| image_embeds, negative_image_embeds | (n, N, D) | IP-Adapter, unCLIP, Kandinsky, Versatile Diffusion |
| control | list of residuals, or a picture (n, 3, y, x) | ControlNet |
| first_frame, flow | (n, 3, y, x), (n, step, 2, y, x) | films |
| class_weights | (n, class) | pictures of a category |

A seed is a picture: a generator gives row i the picture of seed i, alone or in any batch. Pretrained generators were taught
with embeddings of particular encoders; a `FeatureSpec` says which, so that a decoder is trained to predict those
(`features_of`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["Condition", "FeatureSpec", "Generator", "check_requirements", "features_of"]

_AXES = {
    "init_image": 4, "prompt_embeds": 3, "negative_prompt_embeds": 3, "image_embeds": 3, "negative_image_embeds": 3,
    "first_frame": 4, "flow": 5, "class_weights": 2,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Condition:
    """Predictions from the brain; see the table of the module.

    Raises:
        InputError: nothing in it, parts of different length, another number of axes, or NaN.
    """

    init_image: Tensor | None = None
    init_latents: Tensor | None = None
    reliability: Tensor | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    negative_image_embeds: Tensor | None = None
    control: Sequence[Tensor] | Tensor | None = None
    first_frame: Tensor | None = None
    flow: Tensor | None = None
    class_weights: Tensor | None = None

    def __post_init__(self) -> None:
        counts = {}
        for name, part in self._parts():
            axes = _AXES.get(name)
            if axes is not None and part.ndim != axes:
                raise InputError(f"expected {name} with {axes} axes; got {tuple(part.shape)}.")
            if not torch.isfinite(part).all():
                raise InputError(
                    f"expected finite numbers in {name}; got NaN or infinity. Check the decoder."
                )
            if name != "reliability":
                counts[name] = len(part)
        if not counts:
            raise InputError("expected at least one condition for a generator; got none.")
        if len(set(counts.values())) > 1:
            raise InputError(f"expected conditions of as many rows each; got {counts}.")

    def _parts(self) -> list[tuple[str, Tensor]]:
        """Name and tensor of all that is given; of a list of residuals each."""
        found: list[tuple[str, Tensor]] = []
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                found.append((each.name, value))
            elif value is not None:
                found += [(each.name, part) for part in value]
        return found

    @property
    def given(self) -> frozenset[str]:
        """Names of the parts that are there."""
        return frozenset(name for name, _ in self._parts())

    @property
    def count(self) -> int:
        """Number of rows."""
        return next(len(part) for name, part in self._parts() if name != "reliability")

    def rows(self, which: slice) -> "Condition":
        """The condition of some rows."""
        changed: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None or each.name == "reliability":
                continue
            changed[each.name] = (
                value[which] if isinstance(value, Tensor) else [part[which] for part in value]
            )
        return replace(self, **changed)


@dataclass(frozen=True)
class FeatureSpec:
    """Embeddings that a decoder has to predict before a pretrained generator can be told them.

    Attributes:
        part: Name of the part of a `Condition` that they become.
        tokens: Number of tokens T, >= 1.
        dim: Numbers a token, D.
        encoder: Which encoder they come from, and how they are scaled.
    """

    part: str
    tokens: int
    dim: int
    encoder: str

    def check(self, condition: Condition) -> None:
        """Refuse embeddings of another width.

        Raises:
            InputError: the part is there and its last axis is not `dim`.
        """
        value = getattr(condition, self.part)
        if isinstance(value, Tensor) and value.shape[-1] != self.dim:
            raise InputError(
                f"expected {self.part} of {self.dim} numbers a token ({self.encoder}); got {value.shape[-1]}. "
                "Train the decoder on this generator's embeddings."
            )


@runtime_checkable
class Generator(Protocol):
    """What makes pictures, or films, of conditions.

    Attributes:
        requires: Parts of a condition that it cannot do without.
        optional: Parts that it uses where they are there.
        provides: "image" or "video".
    """

    @property
    def requires(self) -> frozenset[str]: ...

    @property
    def optional(self) -> frozenset[str]: ...

    @property
    def provides(self) -> str: ...

    def __call__(
        self,
        condition: Condition,
        *,
        seeds: Sequence[int],
        strength: float = 0.75,
        guidance: float | None = 7.5,
        mix: float = 0.4,
        control_scale: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """Pictures (n, 3, y, x) or films (n, frame, 3, y, x) in [0, 1], one a row.

        Args:
            condition: What was predicted.
            seeds: One a row.
            strength: How far from `init_image`, in (0, 1]; 1 ignores it.
            guidance: Weight of classifier-free guidance, 1: none; None: the generator's own number.
            mix: Weight of the text where text and image guide together, in [0, 1].
            control_scale: Weight of the control, in [0, 1].
            steps: Evaluations; None: the generator's own number.
        """
        ...


def features_of(generator: Generator) -> tuple[FeatureSpec, ...]:
    """Embeddings that a decoder must, or may, predict for a generator: its attribute `features`; none where it has none."""
    return tuple(getattr(generator, "features", ()))


def check_requirements(generator: Generator, condition: Condition, seeds: Sequence[int]) -> None:
    """Refuse a condition that lacks what a generator needs, before any work.

    Raises:
        InputError: which part is missing, not one seed a row, or embeddings of another width.
    """
    missing = sorted(generator.requires - condition.given)
    if missing:
        raise InputError(
            f"expected {', '.join(missing)} for this generator; got {', '.join(sorted(condition.given))}. Train a decoder "
            "with the embeddings that it needs, or choose another --generator."
        )
    if len(seeds) != condition.count:
        raise InputError(f"expected {condition.count} seeds, one a row; got {len(seeds)}.")
    for feature in features_of(generator):
        feature.check(condition)
