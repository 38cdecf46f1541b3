"""The generator that ships: pictures of 32 x 32 pixels from a ridge prediction and its reliability, or from a category.

    condition -> guess and profile (`picture_prior`) -> flow matching, few steps -> draws          a call
                                                     -> evaluations at t = 1     -> their mean     `expected`

The mean of all draws is the best guess in squared error and blurred; one draw is sharp and partly invented. Guidance acts
on the category alone (Ho and Salimans 2022): the guess is told in both branches.

Where the decoder is not calibrated the profile is not what it says it is; `reliability` is the leave-one-out R2 of the
latents, in falling order of their variance.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiata_core.checkpoint import load_model
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.seeds import generators_of, noise_of
from radiata_core.shipped_weights import find_weights
from radiata_core.solvers import integrate
from radiata_core.tables import dpmpp_2m
from radiata_core.times import LogSNRGrid
from radiata_decode.model.conditions import Condition, check_requirements
from radiata_decode.model.picture_prior import CENTRE, SPREAD, PictureNetwork, banded

__all__ = ["OwnGenerator", "own_generator"]

STEPS = 8
GUIDANCE = 2.0
NOISES = 8
TRUST = 0.5
"""Chosen, like NOISES, on a simulated subject (seed 10) that no table is about: correlation with the pictures 0.480 for the
guess, 0.482 for the network's mean, 0.489 for half of each."""


class OwnGenerator:
    """Pictures by the shipped prior, or by another of its kind.

    Args:
        denoiser: With a `PictureNetwork` inside.
        size: Side of its pictures, pixels.

    Attributes:
        features: Embeddings it is told: none.
    """

    requires: frozenset[str] = frozenset()
    optional = frozenset({"init_image", "reliability", "class_weights"})
    provides = "image"
    features = ()

    def __init__(self, denoiser: NetworkDenoiser, size: int = 32) -> None:
        if not isinstance(denoiser.network, PictureNetwork):
            raise InputError(
                f"expected a prior of pictures (picture-network); got {type(denoiser.network).__name__}. Name another model."
            )
        self.denoiser, self.size = denoiser.eval(), size
        self.categories = denoiser.network.categories

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.denoiser.parameters()).device

    def told(self, condition: Condition) -> dict[str, Tensor]:
        """Guess in units of the state, its profile, and category weights, as the network takes them.

        Raises:
            InputError: a guess of another size, without its reliability, or weights of another number of categories.
        """
        found: dict[str, Tensor] = {}
        if condition.init_image is not None and condition.reliability is None:
            raise InputError(
                "expected the reliability of the guess's components; got a guess without it, of an autoencoder. Train the "
                "decoder with --basis shipped, or choose another --generator."
            )
        if condition.init_image is not None and condition.reliability is not None:
            if tuple(condition.init_image.shape[1:]) != (3, self.size, self.size):
                raise InputError(
                    f"expected first guesses of 3 x {self.size} x {self.size}; got {tuple(condition.init_image.shape[1:])}. "
                    f"Train the decoder with --size {self.size}, or choose another --generator."
                )
            profile = banded(condition.reliability.clamp(0, 1).float()).expand(condition.count, -1)
            known = (condition.reliability.amax() > 0).float()  # nothing is known: what is told says nothing
            found["guess"] = known * (condition.init_image.float() - CENTRE) / SPREAD
            found["profile"] = profile
        if condition.class_weights is not None:
            if condition.class_weights.shape[1] != self.categories:
                raise InputError(
                    f"expected weights of {self.categories} categories; got {condition.class_weights.shape[1]}."
                )
            found["class_weights"] = condition.class_weights.float()
        return {name: value.to(self.device) for name, value in found.items()}

    @torch.no_grad()
    def expected(self, condition: Condition) -> Tensor:
        """E[picture | condition], (n, 3, size, size) in [0, 1]: what all draws average to, nearest in squared error.

        Mean of the answers at t = 1 to `NOISES` states of noise, the same for every row; of that and the guess, where
        there is one, `TRUST` to 1 - `TRUST`: the errors of a real decoder are not independent, as the network was taught.
        """
        told = self.told(condition)
        event, last = (3, self.size, self.size), torch.ones((), dtype=torch.float64)
        total = torch.zeros(condition.count, *event, device=self.device)
        for noise in noise_of(generators_of(range(NOISES)), event, torch.float32, "cpu"):
            state = noise.to(self.device).expand(condition.count, -1, -1, -1)
            total += self.denoiser(state, last, **told)
        mean = _picture(total / NOISES)
        if "guess" not in told:
            return mean
        known = 1 - TRUST if bool((told["profile"] > 0).any()) else 0.0
        return torch.lerp(mean, condition.init_image.float().cpu().clamp(0, 1), known)  # type: ignore[union-attr]

    @torch.no_grad()
    def __call__(
        self,
        condition: Condition,
        *,
        seeds: Sequence[int],
        strength: float = 0.75,
        guidance: float | None = None,
        mix: float = 0.4,
        control_scale: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """One draw a row, (n, 3, size, size) in [0, 1].

        Args:
            condition: First guess with its reliability, category weights, or both.
            seeds: One a row.
            strength: Not used: the reliability says how far the guess is to be believed.
            guidance: Of the category; 1: none; None: 2 where there is a category.
            mix: Not used.
            control_scale: Not used.
            steps: Evaluations (twice as many with guidance); None: 8.

        Raises:
            InputError: see `told`; no step.
        """
        check_requirements(self, condition, seeds)
        if steps is not None and steps < 1:
            raise InputError(f"expected at least one step; got {steps}.")
        told = self.told(condition)
        weight = GUIDANCE if guidance is None else guidance
        path = self.denoiser.path
        table = dpmpp_2m(LogSNRGrid()(steps or STEPS, path), path)
        noise = noise_of(generators_of(seeds), (3, self.size, self.size), torch.float32, "cpu").to(
            self.device
        )
        denoiser: Any = self.denoiser
        if "class_weights" in told and weight != 1:
            denoiser = _CategoryGuided(self.denoiser, weight)
        given: dict[str, Any] = dict(told)
        return _picture(integrate(denoiser, noise, table, **given))


class _CategoryGuided:
    """D(nothing of the category) + w (D(category) - D(nothing)), the guess told in both."""

    def __init__(self, denoiser: NetworkDenoiser, weight: float) -> None:
        self.denoiser, self.weight, self.path = denoiser, weight, denoiser.path

    def __call__(self, x: Tensor, t: Tensor, *, class_weights: Tensor, **told: Tensor) -> Tensor:
        free = self.denoiser(x, t, class_weights=torch.full_like(class_weights, torch.nan), **told)
        return free + self.weight * (self.denoiser(x, t, class_weights=class_weights, **told) - free)


def _picture(state: Tensor) -> Tensor:
    return (state * SPREAD + CENTRE).clamp(0, 1).cpu()


def own_generator(name: str | Path = "picture-prior", *, device: str = "cpu") -> OwnGenerator:
    """The generator of a shipped prior, a file or a run folder.

    Raises:
        InputError: no such model, or one of another kind.
    """
    loaded = load_model(find_weights("radiata_decode", name))
    if not isinstance(loaded.denoiser, NetworkDenoiser):
        raise InputError(f"expected a prior of pictures; got {type(loaded.denoiser).__name__} in {name}.")
    return OwnGenerator(loaded.denoiser.to(device), int(loaded.metadata.get("size", 32)))
