r"""Brains brought into one space by what they were shown: shared responses, hyperalignment, ridge to a shared space.

Voxels of two people do not correspond; their responses to the same stimuli do. With responses $X_s$ (stimulus × voxel of
subject s) to common stimuli, centred, the shared response model looks for one matrix S and orthonormal maps

$$ \min_{S, W_s} \sum_s \lVert X_s - S W_s^\top \rVert^2, \quad W_s^\top W_s = I; \qquad
   W_s = U V^\top \text{ of } X_s^\top S = U D V^\top, \quad S = \tfrac1N \sum_s X_s W_s . $$

Both steps lower the loss, subjects may have any number of voxels, and a person who comes later needs the first formula only.
Every orthogonal rotation of S is as good. `ridge_to_shared` replaces the orthonormal map by a ridge regression from
responses to S: more freedom, more data needed. `hyperalignment` (Procrustes to a common template in voxel space) is
fmralign's; it asks for as many voxels in each subject, as on a common surface.

A decoder trained on `project`ed responses of some people decodes others'. Common stimuli must not be test stimuli.

References:
    P.-H. Chen et al. (2015). A reduced-dimension fMRI shared response model. NIPS (deterministic form).
    J. Haxby et al. (2011). A common, high-dimensional model of the representational space in human ventral temporal
    cortex. Neuron 72, 404–416.
    P. Schönemann (1966). A generalized solution of the orthogonal Procrustes problem. Psychometrika 31, 1–10.
    P. Scotti et al. (2024). MindEye2. https://arxiv.org/abs/2403.11207 (a ridge layer for each subject into a shared space).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.ridge import RidgeDecoder, SharedRidge

__all__ = ["SharedSpace", "hyperalignment", "procrustes", "ridge_to_shared", "shared_responses"]

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class SharedSpace:
    """A space that several people's responses map to.

    Attributes:
        maps: Subject → W, (v, k).
        means: Subject → mean response to the common stimuli, (v,).
        shared: S, (n, k), mean over subjects of the mapped responses to the common stimuli.
        losses: Share of the responses' variance that S does not explain, after each iteration; falling.
    """

    maps: dict[str, Tensor]
    means: dict[str, Tensor]
    shared: Tensor
    losses: tuple[float, ...] = ()

    def project(self, subject: str, responses: Array) -> Tensor:
        """Responses (m, v) of a subject in the shared space, (m, k).

        Raises:
            InputError: a subject that is not in it, or another number of voxels.
        """
        if subject not in self.maps:
            raise InputError(
                f"expected one of the aligned subjects {', '.join(sorted(self.maps))}; got {subject}. Join it first."
            )
        values = torch.tensor(np.asarray(responses), dtype=torch.float32)
        if values.ndim != 2 or values.shape[1] != len(self.means[subject]):
            raise InputError(
                f"expected responses of {len(self.means[subject])} voxels of {subject}; got {tuple(values.shape)}."
            )
        return (values - self.means[subject]) @ self.maps[subject]

    def joined(self, subject: str, responses: Array) -> "SharedSpace":
        """The space with one more subject; S and the other maps stay as they are.

        Args:
            subject: A new name.
            responses: To the common stimuli in the order of S, (n, v).

        Raises:
            InputError: the name is taken, other rows than S has, or NaN.
        """
        if subject in self.maps:
            raise InputError(f"expected a new subject; got {subject}, which is aligned already. Rename it.")
        values = _checked(subject, responses, len(self.shared))
        mean = values.mean(0)
        maps = self.maps | {subject: procrustes(values - mean, self.shared)}
        return SharedSpace(maps, self.means | {subject: mean}, self.shared, self.losses)


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    """W (v, k) with orthonormal columns (rows, for v < k) that brings `source` (n, v) closest to `target` (n, k).

    Args:
        source: Centred.
        target: Centred, same rows.
    """
    left, _, right = torch.linalg.svd((source.T @ target).double(), full_matrices=False)
    return (left @ right).to(source.dtype)


def shared_responses(
    responses: Mapping[str, Array], components: int = 50, *, iterations: int = 20, tolerance: float = 1e-5
) -> SharedSpace:
    """The shared response model of several subjects.

    Args:
        responses: Subject → responses to the same n stimuli in the same order, (n, v); v may differ. Z-scored ones, so
            that no subject counts more for its units.
        components: k; at most n - 1 and the fewest voxels.
        iterations: At most.
        tolerance: Stop when the loss falls by less than this share.

    Raises:
        InputError: fewer than two subjects, different numbers of stimuli, k out of range, NaN.
    """
    if len(responses) < 2:
        raise InputError(f"expected two subjects or more to align; got {len(responses)}. Add one.")
    count = int(next(iter(responses.values())).shape[0])
    centred, means = {}, {}
    for name, values in responses.items():
        checked = _checked(name, values, count)
        means[name] = checked.mean(0)
        centred[name] = checked - means[name]
    most = min(count - 1, *(value.shape[1] for value in centred.values()))
    if not 1 <= components <= most:
        raise InputError(
            f"expected 1 to {most} components (stimuli less one, and fewest voxels); got {components}."
        )
    total = sum(float(value.double().square().sum()) for value in centred.values())
    # Start from the directions that all subjects' stimulus-by-stimulus similarities share.
    gram = torch.stack([value @ value.T for value in centred.values()]).sum(0).double()
    values, vectors = torch.linalg.eigh(gram)
    spread = values[-components:].clamp(min=0).sqrt() / len(centred) ** 0.5
    shared = (vectors[:, -components:] * spread).flip(1).float()
    losses: list[float] = []
    maps: dict[str, Tensor] = {}
    for _ in range(max(1, iterations)):
        maps = {name: procrustes(value, shared) for name, value in centred.items()}
        shared = torch.stack([value @ maps[name] for name, value in centred.items()]).mean(0)
        explained = len(centred) * float(shared.double().square().sum())
        losses.append(1 - explained / total)
        if len(losses) > 1 and losses[-2] - losses[-1] < tolerance * losses[-1]:
            break
    return SharedSpace(maps, means, shared, tuple(losses))


def hyperalignment(responses: Mapping[str, Array], *, iterations: int = 3) -> SharedSpace:
    """Procrustes hyperalignment to a common template, by fmralign; maps are (v, v).

    Args:
        responses: Subject → (n, v), the same n and v in all.
        iterations: Of the template.

    Raises:
        InputError: fmralign is not installed, fewer than two subjects, or shapes that differ.
    """
    try:
        from fmralign import GroupAlignment
    except ImportError:
        raise InputError(
            "expected the library fmralign for hyperalignment; got none installed. "
            'Run pip install "radiata-decode[align]", or use shared responses, which need nothing.'
        ) from None
    shapes = {tuple(values.shape) for values in responses.values()}
    if len(responses) < 2 or len(shapes) != 1:
        raise InputError(
            f"expected two subjects or more with as many stimuli and voxels each; got {sorted(shapes)}. "
            "Use shared responses for different numbers of voxels."
        )
    count = next(iter(shapes))[0]
    checked = {name: _checked(name, values, count) for name, values in responses.items()}
    means = {name: values.mean(0) for name, values in checked.items()}
    centred = {name: (values - means[name]).double().numpy() for name, values in checked.items()}
    aligned = GroupAlignment(method="procrustes", n_iter=iterations).fit(centred, y="template")
    # The maps are linear: what they do to the unit vectors is their matrix.
    unit = np.eye(next(iter(shapes))[1])
    found = aligned.transform(dict.fromkeys(centred, unit))
    maps = {name: torch.tensor(np.asarray(value)).float() for name, value in found.items()}
    shared = torch.stack([torch.from_numpy(centred[name]).float() @ maps[name] for name in maps]).mean(0)
    return SharedSpace(maps, means, shared)


def ridge_to_shared(
    responses: Array,
    shared: Tensor,
    *,
    sample_weights: Array | None = None,
    voxel_weights: Array | None = None,
) -> tuple[RidgeDecoder, Tensor]:
    """A ridge from a subject's responses (n, v) to a shared space (n, k), and its leave-one-out R² (k,).

    Args:
        responses: To the stimuli of `shared`, in its order.
        shared: S, of other subjects; or any latent space that is known for these stimuli.
        sample_weights: As in `SharedRidge`.
        voxel_weights: As in `SharedRidge`.

    Raises:
        InputError: other rows than S has, or NaN.
    """
    ridge = SharedRidge(responses, sample_weights=sample_weights, voxel_weights=voxel_weights)
    fit = ridge.fit(shared)
    return ridge.decoder(fit), fit.loo_r2.cpu()


def _checked(subject: str, responses: Array, count: int) -> Tensor:
    values = torch.tensor(np.asarray(responses), dtype=torch.float32)
    if values.ndim != 2 or len(values) != count:
        raise InputError(
            f"expected responses of {subject} to the same {count} stimuli; got {tuple(values.shape)}. "
            "Keep the stimuli that all have seen, in one order."
        )
    if not torch.isfinite(values).all():
        raise InputError(f"expected finite responses of {subject}; got NaN. Prepare it again: it masks them.")
    return values
