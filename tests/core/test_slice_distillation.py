"""Volumes from slices where the answer is known: Gaussian priors, whose minimiser is the solution of a linear system."""

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Dense
from radiata_core.downsampling import thick_slices
from radiata_core.errors import InputError
from radiata_core.field_fits import field_optimiser, fit_field
from radiata_core.masking import Masking
from radiata_core.paths import LinearPath
from radiata_core.projection import ParallelBeam, view_angles
from radiata_core.score_distillation import AnnealedTimes, ScoreDistillation
from radiata_core.seeds import generator_of
from radiata_core.slice_distillation import FieldOnGrid, Held, Measured, VoxelVolume, volume_from_slices

SIDE = 12
AFFINE = torch.eye(3).double()


def correlations(side: int, length: float = 2.5) -> Tensor:
    at = torch.arange(side, dtype=torch.float64)
    return torch.exp(-0.5 * ((at[:, None] - at) / length).square()) + 0.01 * torch.eye(side).double()


def line_prior() -> GaussianDenoiser:
    """Smooth lines of mean 0.2, (channel, 12): the prior of the "slices" of an image."""
    return GaussianDenoiser(torch.full((1, SIDE), 0.2).double(), Dense(correlations(SIDE)), LinearPath())


def image_of(seed: int) -> Tensor:
    """A draw of the Gaussian image whose rows and columns have that prior."""
    root = torch.linalg.cholesky(correlations(SIDE))
    noise = torch.randn(SIDE, SIDE, generator=generator_of(seed), dtype=torch.float64)
    return (0.2 + root @ noise @ root.mT)[None, None]


def every_third() -> Masking:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[1::3] = True
    return Masking(mask, (1, SIDE, SIDE))


def pull_of(t: float) -> Tensor:
    """Second derivative of the expected objective of all rows and all columns: I - G along each, (pixels, pixels)."""
    covariance, one = correlations(SIDE), torch.eye(SIDE).double()
    noisy = (1 - t) ** 2 * covariance + t**2 * one
    pull = one - (1 - t) ** 2 * covariance @ torch.linalg.inv(noisy)
    return torch.kron(pull, one) + torch.kron(one, pull)


def error(x: Tensor, truth: Tensor, operator: Masking) -> float:
    return float((x - truth)[0, 0][~operator.mask].square().mean().sqrt())


def test_ends_at_the_constrained_minimiser() -> None:
    """At one level of noise the pull of a Gaussian is (I - G)(x - m), G = alpha^2 S (alpha^2 S + sigma^2)^-1 ... in closed
    form, so the expected objective is a quadratic whose minimum under the known voxels is a linear system's solution."""
    operator, truth, t = every_third(), image_of(1), 0.3
    times = AnnealedTimes(high=(t, t), low=(t, t))
    data = Held(operator, operator(truth))
    scene = VoxelVolume(operator.pseudo_inverse(data.y))
    found = volume_from_slices(
        ScoreDistillation(line_prior(), times),
        scene,
        data,
        generator_of(2),
        axes=(0, 1),
        steps=1000,
        slices=12,
    )
    hessian = pull_of(t)
    free = ~operator.mask.flatten()
    flat = truth.flatten() - 0.2
    expected = flat.clone()
    expected[free] = -torch.linalg.solve(hessian[free][:, free], hessian[free][:, ~free] @ flat[~free])
    expected = expected.reshape(truth.shape) + 0.2
    assert error(found, expected, operator) < 0.12 * error(
        operator.pseudo_inverse(data.y), expected, operator
    )
    torch.testing.assert_close(operator(found), data.y, rtol=0, atol=1e-14)


def test_annealed_noise_finds_the_missing_rows_and_random_noise_does_not() -> None:
    """Root mean square error of missing rows, 2 images: annealed is below the start's and below 0.8 of random times'."""
    sums = {"start": 0.0, "annealed": 0.0, "random": 0.0}
    operator = every_third()
    for seed in range(2):
        truth = image_of(10 + seed)
        data = Held(operator, operator(truth))
        # nearest known row: what a viewer shows
        start = truth[:, :, torch.arange(SIDE) // 3 * 3 + 1]
        sums["start"] += error(start, truth, operator)
        for name, times in {
            "annealed": AnnealedTimes(high=(0.3, 0.05), low=(0.1, 0.02)),
            "random": AnnealedTimes(high=(0.98, 0.98), low=(0.02, 0.02)),
        }.items():
            found = volume_from_slices(
                ScoreDistillation(line_prior(), times),
                VoxelVolume(start),
                data,
                generator_of(seed),
                axes=(0, 1),
                steps=100,
            )
            sums[name] += error(found, truth, operator)
    assert sums["annealed"] < 0.8 * sums["start"]
    assert sums["annealed"] < 0.8 * sums["random"]


def test_thick_slices_are_held() -> None:
    """To rounding, since the pseudo-inverse has a closed form; and the result is nearer to the truth than that."""
    truth = image_of(3)
    distillation = ScoreDistillation(line_prior(), AnnealedTimes(high=(0.2, 0.05), low=(0.05, 0.02)))
    thick = thick_slices((1, SIDE, SIDE), -2, 3)
    y = thick(truth)
    found = volume_from_slices(
        distillation,
        VoxelVolume(thick.pseudo_inverse(y)),
        Held(thick, y),
        generator_of(0),
        axes=(0, 1),
        steps=120,
    )
    torch.testing.assert_close(thick(found), y, rtol=0, atol=1e-12)
    assert float((found - truth).norm()) < float((thick.pseudo_inverse(y) - truth).norm())


def test_few_views_end_where_prior_and_data_balance() -> None:
    """The same quadratic with weight/2 |A x - y|^2 beside it: (pull/2 + weight A^T A)(x - m) = weight A^T (y - A m)."""
    truth, t, weight = image_of(3), 0.4, 0.02
    beam = ParallelBeam(view_angles(4), (1, SIDE, SIDE))
    y = beam(truth)
    start = torch.zeros_like(truth)
    found = volume_from_slices(
        ScoreDistillation(line_prior(), AnnealedTimes(high=(t, t), low=(t, t))),
        VoxelVolume(start),
        Measured(beam, y, weight),
        generator_of(0),
        axes=(0, 1),
        steps=150,
        slices=4,
        rate=0.05,
    )
    matrix = beam(torch.eye(SIDE**2).double().reshape(-1, 1, SIDE, SIDE)).flatten(1).mT
    mean = torch.full((SIDE**2,), 0.2).double()
    moment = weight * matrix.mT @ (y.flatten() - matrix @ mean)
    hessian = pull_of(t) / 2 + weight * matrix.mT @ matrix
    balance = torch.linalg.solve(hessian, moment) + mean
    # What is left of the objective above its minimum, relative to the start: weak directions count for little.
    above = [float(e @ hessian @ e) for e in ((x.flatten() - balance) for x in (found, start))]
    assert above[0] < 0.05 * above[1]


def test_second_stage_on_gaussians() -> None:
    """Gaussians made from a first stage and refined under the data fit the measurement better than before."""
    truth, operator = image_of(4), every_third()
    data = Measured(operator, operator(truth), 10.0)
    field = fit_field(truth + 0.1, AFFINE, 30, generator_of(1), steps=40, points=144)
    scene = FieldOnGrid(field, (SIDE, SIDE), AFFINE)
    before = float(data.loss(scene().detach()))
    seen: list[int] = []
    found = volume_from_slices(
        ScoreDistillation(line_prior(), AnnealedTimes(high=(0.1, 0.05), low=(0.05, 0.02))),
        scene,
        data,
        generator_of(2),
        axes=(0, 1),
        steps=50,
        optimiser=field_optimiser(field),
        callback=lambda step, distilled: seen.append(step),
    )
    assert float(data.loss(found)) < 0.5 * before
    torch.testing.assert_close(found, scene().detach())
    assert seen == list(range(50))


def test_three_axes_with_mirrored_slices() -> None:
    """A 3-D volume whose slices the prior's network takes in multiples of 4 only; the same generator, the same volume."""

    class Coarse:
        path, network = LinearPath(), type("Network", (), {"multiple": 4})

        def __call__(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
            assert all(n % 4 == 0 for n in x.shape[2:])
            assert conditions["covariates"].shape == (len(x), 2)
            return x.mean((2, 3), keepdim=True).expand_as(x)

    operator = thick_slices((1, 6, 7, 5), -1, 2)
    y = torch.ones(1, 1, 6, 7, 2)
    found = [
        volume_from_slices(
            ScoreDistillation(Coarse()), VoxelVolume(torch.zeros(1, 1, 6, 7, 5)), Held(operator, y), generator_of(1),
            steps=4, slices=3, covariates=torch.zeros(1, 2),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert torch.equal(*found)
    torch.testing.assert_close(operator(found[0]), y)


def test_bad_input_is_explained() -> None:
    operator, distillation = every_third(), ScoreDistillation(line_prior())
    data = Held(operator, operator(image_of(0)))
    scene = VoxelVolume(image_of(0))
    with pytest.raises(InputError, match="axes out of 0 to 1"):
        volume_from_slices(distillation, scene, data, generator_of(0))
    with pytest.raises(InputError, match="steps >= 1"):
        volume_from_slices(distillation, scene, data, generator_of(0), axes=(0,), steps=0)
    with pytest.raises(InputError, match="Take them in turn"):
        volume_from_slices(
            distillation, VoxelVolume(image_of(0).expand(2, -1, -1, -1)), data, generator_of(0), axes=(0,)
        )
    field = FieldOnGrid(fit_field(image_of(0), AFFINE, 3, generator_of(0), steps=0), (SIDE, SIDE), AFFINE)
    with pytest.raises(InputError, match="Only voxels can be held"):
        volume_from_slices(distillation, field, data, generator_of(0), axes=(0,))
    with pytest.raises(InputError, match="expected events"):
        volume_from_slices(
            distillation, VoxelVolume(torch.zeros(1, 1, 5, 5).double()), data, generator_of(0), axes=(0,)
        )
