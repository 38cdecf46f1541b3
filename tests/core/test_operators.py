"""One contract for all operators, in the plane and in space: each is compared with its own dense matrix."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from radiata_core.conjugate_gradients import real_product
from radiata_core.convolution import Boundary, CircularBlur, KernelBlur, gaussian_kernel
from radiata_core.downsampling import AveragePooling, Profile, box_average, slice_profile, thick_slices
from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling, MultiCoilSampling, coil_sensitivities
from radiata_core.kspace_masks import equispaced_lines, radial_spokes, random_lines, random_points
from radiata_core.masking import Masking, defaced, field_of_view, lesion
from radiata_core.operator_algebra import Composition, Stacked
from radiata_core.operators import LinearOperator, SpectralOperator
from radiata_core.pointwise import Identity, Multiplication, Scaling, bias_field
from radiata_core.projection import ParallelBeam, view_angles
from radiata_core.rigid_motion import MovingSampling, random_motion, shots_of_lines
from radiata_core.seeds import generator_of
from radiata_core.separable import Separable, gaussian_blur

PLANE, SPACE = (2, 6, 5), (1, 4, 5, 3)
"""Channels and a grid of unequal, odd and even sides: nothing here may depend on an order of axes."""


def _random(shape: tuple[int, ...], seed: int, is_complex: bool = False, dtype=torch.float64) -> Tensor:
    dtype = dtype.to_complex() if is_complex else dtype
    return torch.randn(shape, generator=generator_of(seed), dtype=dtype)


def _kernel(*sides: int) -> Tensor:
    """A middle that is stronger than the rest together: no direction is lost."""
    kernel = _random(sides, 6)
    kernel = 0.5 * kernel / kernel.abs().sum()
    kernel[tuple(side // 2 for side in sides)] += 1
    return kernel


def _lines(event: tuple[int, ...]) -> Tensor:
    return random_lines(event[1:], 2.0, generator_of(1), axis=-1, middle=0.2)


def _moving(event: tuple[int, ...], *, real: bool, mask: Tensor | None = None) -> LinearOperator:
    motion = random_motion(2, len(event) - 1, generator_of(2), shift=1.0, turn=8.0)
    return MovingSampling(motion, shots_of_lines(event[-2], 2), event, real=real, mask=mask)


Makers = dict[str, Callable[[tuple[int, ...]], LinearOperator]]

BOTH: Makers = {
    "identity": Identity,
    "scaling": lambda e: Scaling(-1.7, e),
    "bias field": lambda e: Multiplication(bias_field(e[1:], generator_of(3), 0.4), e),
    "complex field": lambda e: Multiplication(_random(e[1:], 4, True), e),
    "lesion": lambda e: Masking(lesion(e[1:], generator_of(5), 1.6), e),
    "field of view": lambda e: Masking(field_of_view(e[1:], [1] * (len(e) - 1), [3] * (len(e) - 1)), e),
    "defaced": lambda e: Masking(defaced(e[1:], -2, -1), e),
    "one voxel": lambda e: Masking(torch.arange(math.prod(e[1:])).reshape(e[1:]) == 7, e),
    "circular Gaussian": lambda e: CircularBlur(gaussian_kernel([0.5] * (len(e) - 1), 2.0), e),
    "circular kernel": lambda e: CircularBlur(_kernel(2, *[3] * (len(e) - 2)), e),
    "kernel, reflecting": lambda e: KernelBlur(_kernel(4, *[3] * (len(e) - 2)), e),
    "kernel, zero": lambda e: KernelBlur(_kernel(2, *[3] * (len(e) - 2)), e, Boundary.ZERO),
    "kernel in a plane": lambda e: KernelBlur(_kernel(3, 2), e),
    "Gaussian, reflecting": lambda e: gaussian_blur([0.7] + [0.0] * (len(e) - 3) + [0.5], e),
    "Gaussian, zero": lambda e: gaussian_blur([0.7] * (len(e) - 1), e, Boundary.ZERO),
    "pooling": lambda e: AveragePooling((*(1,) * (len(e) - 3), 2 if e[-2] % 2 == 0 else 5, e[-1]), e),
    "thick slices": lambda e: thick_slices(e, -2, 2.0),
    "overlapping slices": lambda e: thick_slices(e, -2, 1.5, 2.5, Profile.GAUSSIAN),
    "slices with gaps": lambda e: thick_slices(e, -1, 2.0, 1.2),
    "rational factors": lambda e: Separable([box_average(n, n - 1) for n in e[1:]], e),
    "lines": lambda e: FourierSampling(_lines(e), e),
    "lines, real image": lambda e: FourierSampling(_lines(e), e, real=True),
    "equispaced, real image": lambda e: FourierSampling(
        equispaced_lines(e[1:], 2.0, axis=-2, middle=0.2), e, real=True
    ),
    "spokes, real image": lambda e: FourierSampling(radial_spokes(e[1:], 2), e, real=True),
    "points": lambda e: FourierSampling(random_points(e[1:], 3.0, generator_of(10), middle=0.1), e),
    "one sample without its mirror": lambda e: FourierSampling(
        torch.arange(math.prod(e[1:])).reshape(e[1:]) == math.prod(e[1:]) - 1, e, real=True
    ),
    "coils": lambda e: MultiCoilSampling(_lines(e), coil_sensitivities(e[1:], 4), e),
    "coils, real image": lambda e: MultiCoilSampling(_lines(e), coil_sensitivities(e[1:], 3), e, real=True),
    "projection": lambda e: ParallelBeam(view_angles(7, start=10.0), e),
    "projection, few": lambda e: ParallelBeam(view_angles(3, span=60.0), e, detectors=3),
    "motion": lambda e: _moving(e, real=False),
    "motion, real image": lambda e: _moving(e, real=True),
    "motion, lines": lambda e: _moving(e, real=True, mask=_lines(e)),
    "slices of a biased image": lambda e: Composition(
        thick_slices(e, -2, 2.0), Multiplication(bias_field(e[1:], generator_of(11)), e)
    ),
    "coil of a biased image": lambda e: (
        FourierSampling(_lines(e), e) @ Multiplication(bias_field(e[1:], generator_of(11)), e)
    ),
    "two orientations": lambda e: Stacked(thick_slices(e, -2, 2.0), Scaling(2.0, e) @ thick_up(e)),
    "stacked k-space": lambda e: Stacked(
        FourierSampling(_lines(e), e, real=True),
        Scaling(0.5, (e[0], math.prod(e[1:]))) @ _moving(e, real=True),
    ),
}
SPATIAL: Makers = {
    "projection of axial planes": lambda e: ParallelBeam(view_angles(5), e, axes=(-3, -2)),
    "slices along the first axis": lambda e: thick_slices(e, -3, 1.6, 1.6),
    "motion, first axis": lambda e: MovingSampling(
        random_motion(2, 3, generator_of(12), shift=1.0, turn=8.0),
        shots_of_lines(e[-3], 2, interleaved=True),
        e,
        axis=-3,
    ),
}


def thick_up(event: tuple[int, ...]) -> LinearOperator:
    """Thick slices that keep the number of voxels, so that a scale can follow."""
    n = event[-1]
    return Separable([slice_profile(n, 1.0, 2.0)], event)


CASES = {f"{name}, 2-D": (maker, PLANE) for name, maker in BOTH.items()}
CASES |= {f"{name}, 3-D": (maker, SPACE) for name, maker in (BOTH | SPATIAL).items() if name != "motion"}


@functools.cache
def made(case: str) -> LinearOperator:
    maker, event = CASES[case]
    return maker(event)


@pytest.fixture(params=CASES)
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return made(request.param)


def events(a: LinearOperator, rows: int = 3, seed: int = 20, dtype=torch.float64) -> Tensor:
    return _random((rows, *a.event_shape), seed, bool(a.complex_event), dtype)


def measurements(a: LinearOperator, rows: int = 3, seed: int = 21, dtype=torch.float64) -> Tensor:
    return _random((rows, *a.measurement_shape), seed, bool(a.complex_measurement), dtype)


def as_real(x: Tensor) -> Tensor:
    """(batch, numbers): a complex number counts as two real ones, and the inner product is the real one."""
    return torch.view_as_real(x).flatten(1) if x.is_complex() else x.flatten(1)


def as_event(rows: Tensor, a: LinearOperator) -> Tensor:
    if a.complex_event:
        return torch.view_as_complex(rows.reshape(len(rows), *a.event_shape, 2).contiguous())
    return rows.reshape(len(rows), *a.event_shape)


@functools.cache
def dense(a: LinearOperator) -> Tensor:
    """The matrix of A between real vectors, column by column."""
    size = math.prod(a.event_shape) * (2 if a.complex_event else 1)
    return as_real(a(as_event(torch.eye(size, dtype=torch.float64), a))).T.contiguous()


def condition(a: LinearOperator) -> float:
    """Of A on the complement of its null space."""
    values = torch.linalg.svdvals(dense(a))
    values = values[values > 1e-10 * values[0]]
    return float(values[0] / values[-1])


def test_adjoint(operator: LinearOperator) -> None:
    """Re <A x, y> = Re <x, A^T y>, in both precisions."""
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        x, y = events(operator, dtype=dtype), measurements(operator, dtype=dtype)
        gap = real_product(operator(x), y) - real_product(x, operator.adjoint(y))
        size = operator(x).flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
        assert (gap.abs() <= tolerance * size).all()


def test_adjoint_is_that_of_autograd(operator: LinearOperator) -> None:
    """The derivative of A x along y is A^T y, and that of A^T y along x is A x."""
    x, y = events(operator).requires_grad_(), measurements(operator).requires_grad_()
    (slope,) = torch.autograd.grad(operator(x), x, y.detach())
    torch.testing.assert_close(slope, operator.adjoint(y.detach()))
    (slope,) = torch.autograd.grad(operator.adjoint(y), y, x.detach())
    torch.testing.assert_close(slope, operator(x.detach()))


def test_linearity(operator: LinearOperator) -> None:
    x, z = events(operator), events(operator, seed=22)
    torch.testing.assert_close(operator(2 * x - 0.3 * z), 2 * operator(x) - 0.3 * operator(z))


def test_normal_is_adjoint_after_forward(operator: LinearOperator) -> None:
    x = events(operator)
    torch.testing.assert_close(operator.normal(x), operator.adjoint(operator(x)))


def test_norm_is_the_largest_singular_value(operator: LinearOperator) -> None:
    """Exact in closed form; else from below to 1e-3, in single precision."""
    largest = float(torch.linalg.svdvals(dense(operator))[0])
    exact = isinstance(operator, SpectralOperator)
    assert operator.norm == pytest.approx(largest, rel=1e-12 if exact else 1e-3)
    assert operator.norm <= largest * (1 + (1e-12 if exact else 1e-5))


def test_pseudo_inverse_is_that_of_the_matrix(operator: LinearOperator) -> None:
    """numpy's, through an SVD. Conjugate gradients to a residual r are off by r times the condition squared."""
    y = measurements(operator)
    expected = as_real(y) @ torch.as_tensor(_pinv(dense(operator))).T
    found = as_real(operator.pseudo_inverse(y))
    allowed = 1e-11 if isinstance(operator, SpectralOperator) else 1e-9 * condition(operator)
    assert allowed < 1e-3, "an operator too ill-conditioned to learn anything here"
    assert float((found - expected).norm() / expected.norm()) < allowed * condition(operator)


def _pinv(matrix: Tensor) -> object:
    import numpy as np

    return np.linalg.pinv(matrix.numpy(), rcond=1e-10)


def test_solve_and_prox_are_those_of_the_matrix(operator: LinearOperator) -> None:
    """(A^T A + rho I) u = b by LU, a rho a row; the prox as minimum of its own objective. A start changes nothing."""
    x, y, matrix = events(operator), measurements(operator), dense(operator)
    rho = torch.tensor([0.02, 0.3, 40.0], dtype=torch.float64)
    eye = torch.eye(matrix.shape[1], dtype=torch.float64)
    gram = (matrix.T @ matrix)[None] + rho[:, None, None] * eye
    close = functools.partial(torch.testing.assert_close, rtol=1e-7, atol=1e-7)
    solved = operator.solve(x, rho)
    close(as_real(solved), torch.linalg.solve(gram, as_real(x)))
    close(operator.solve(x[:2], 0.3, start=solved[:2])[1], solved[1])
    right = as_real(y) @ matrix + rho[:, None] * as_real(x)
    close(as_real(operator.prox(x, y, rho)), torch.linalg.solve(gram, right))


def test_rows_do_not_depend_on_the_batch(operator: LinearOperator) -> None:
    x, y = events(operator), measurements(operator)
    rho = torch.tensor([0.02, 0.3, 40.0], dtype=torch.float64)
    whole = operator(x), operator.adjoint(y), operator.prox(x, y, rho), operator.pseudo_inverse(y)
    row = slice(1, 2)
    alone = operator(x[row]), operator.adjoint(y[row]), operator.prox(x[row], y[row], rho[row])
    for part, one in zip(whole, (*alone, operator.pseudo_inverse(y[row])), strict=True):
        torch.testing.assert_close(part[row], one, rtol=1e-8, atol=1e-10)


def test_dtype_is_kept_and_single_precision_is_near_double(operator: LinearOperator) -> None:
    x, y = events(operator), measurements(operator)
    pairs = [
        (operator(x), operator(_single(x))),
        (operator.adjoint(y), operator.adjoint(_single(y))),
        (operator.normal(x), operator.normal(_single(x))),
        (operator.solve(x, 0.1), operator.solve(_single(x), 0.1)),
        (operator.prox(x, y, 0.1), operator.prox(_single(x), _single(y), 0.1)),
    ]
    for fine, coarse in pairs:
        assert coarse.dtype == (torch.complex64 if fine.is_complex() else torch.float32)
        assert float((coarse - fine).abs().max()) < 1e-3 * float(fine.abs().max())
    assert operator.pseudo_inverse(_single(y)).dtype == pairs[1][1].dtype


def _single(x: Tensor) -> Tensor:
    return x.to(torch.complex64 if x.is_complex() else torch.float32)


def test_the_operators_tensors_follow_the_device(operator: LinearOperator) -> None:
    """On a device that has no numbers, every tensor that stayed behind on the CPU is an error."""
    if isinstance(operator, ParallelBeam):
        pytest.skip("torch multiplies no sparse matrices there")
    assert operator(events(operator).to("meta")).device.type == "meta"
    assert operator.adjoint(measurements(operator).to("meta")).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_is_kept(operator: LinearOperator) -> None:
    """An operator made on the CPU follows its input."""
    x, y = events(operator), measurements(operator)
    for on_cpu, call in (
        (operator(x), lambda: operator(x.cuda())),
        (operator.adjoint(y), lambda: operator.adjoint(y.cuda())),
        (operator.prox(x, y, 0.3), lambda: operator.prox(x.cuda(), y.cuda(), 0.3)),
        (operator.pseudo_inverse(y), lambda: operator.pseudo_inverse(y.cuda())),
    ):
        there = call()
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), on_cpu, rtol=1e-6, atol=1e-6)


def test_solve_and_pseudo_inverse_have_exact_derivatives(operator: LinearOperator) -> None:
    """d <w, H^{-1} b> is H^{-1} w in b and -<H^{-1} w, H^{-1} b> in rho; that of the pseudo-inverse is its transpose."""
    b, w = events(operator).requires_grad_(), events(operator, seed=24)
    rho = torch.tensor([0.05, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    by_b, by_rho = torch.autograd.grad(operator.solve(b, rho), (b, rho), w)
    with torch.no_grad():
        left, right = operator.solve(w, rho), operator.solve(b, rho)
    torch.testing.assert_close(by_b, left, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(by_rho, -real_product(left, right), rtol=1e-6, atol=1e-7)
    if len(operator.event_shape) > 3 and not isinstance(operator, SpectralOperator):
        return  # the same two lines of code as in the plane, and the dearest ones
    y = measurements(operator).requires_grad_()
    (slope,) = torch.autograd.grad(operator.pseudo_inverse(y), y, w)
    expected = as_real(w) @ torch.as_tensor(_pinv(dense(operator)))
    # Two solves one after the other, each with the error of the test of the pseudo-inverse.
    allowed = 1e-10 if isinstance(operator, SpectralOperator) else 1e-9 * condition(operator) ** 4
    assert float((as_real(slope) - expected).norm() / expected.norm()) < min(allowed, 1e-2)


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(made(c), SpectralOperator)])
def test_functions_of_the_spectrum(case: str) -> None:
    """f(A^T A) by an eigendecomposition of the matrix, for an f that is 0 at 0 and one that is not, one a row."""
    operator, x = made(case), events(made(case))
    assert isinstance(operator, SpectralOperator)
    values, vectors = torch.linalg.eigh(dense(operator).T @ dense(operator))
    shift = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    for function in (lambda v, s: v, lambda v, s: torch.exp(-v * s) + s):
        found = operator.spectral(
            lambda v, f=function: f(v, shift.reshape(-1, *(1,) * (x.ndim - 1))),
            x,  # type: ignore[misc]
        )
        scaled = (as_real(x) @ vectors) * function(values.clamp_min(0)[None], shift[:, None])
        torch.testing.assert_close(as_real(found), scaled @ vectors.T)


def test_operators_that_follow_their_input_take_complex_images() -> None:
    """The real and the imaginary part each, for those that are neither real nor complex by nature."""
    for case in CASES:
        operator = made(case)
        if operator.complex_event is None:
            real, imaginary = events(operator), events(operator, seed=25)
            both = torch.complex(real, imaginary)
            parts = torch.complex(operator(real), operator(imaginary))
            torch.testing.assert_close(operator(both), parts)
            parts = torch.complex(operator.solve(real, 0.2), operator.solve(imaginary, 0.2))
            torch.testing.assert_close(operator.solve(both, 0.2), parts, rtol=1e-7, atol=1e-8)


# Bad input --------------------------------------------------------------------------------------------------------------


def test_input_of_another_kind_is_refused_in_one_line(operator: LinearOperator) -> None:
    x, y = events(operator), measurements(operator)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: operator(x[0]), r"expected events of shape \(batch"),
        (lambda: operator(x[..., :-1]), "expected events of shape"),
        (lambda: operator.adjoint(y[..., :-1]), "expected measurements of shape"),
        (lambda: operator.pseudo_inverse(y[0]), "expected measurements of shape"),
        (lambda: operator.normal(x[None]), "expected events of shape"),
        (lambda: operator.solve(x, -0.1), "expected rho > 0; got -0.1"),
        (lambda: operator.solve(x, 0.0), "use pseudo_inverse"),
        (lambda: operator.solve(x, math.nan), "expected rho > 0"),
        (lambda: operator.solve(x, torch.ones(2)), "one a row, 3; got the shape"),
        (lambda: operator.solve(x, 0.1, start=x[:1]), "expected a start of the shape"),
        (lambda: operator.prox(x, y[:2], 0.1), "expected one measurement a row, 3"),
        (lambda: operator.prox(x, y, torch.tensor([1.0, 0.0, 1.0])), "expected rho > 0"),
    ]
    if operator.complex_event is not None:
        other = x.real if operator.complex_event else x.to(torch.complex128)
        calls.append(
            (lambda: operator(other), f"expected {'complex' if operator.complex_event else 'real'} events")
        )
    if operator.complex_measurement is not None:
        turned = y.real if operator.complex_measurement else y.to(torch.complex128)
        calls.append((lambda: operator.adjoint(turned), "measurements; got torch"))
    for call, message in calls:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_an_event_without_an_axis_is_refused() -> None:
    with pytest.raises(InputError, match="expected the shape of an event"):
        Identity(())
    with pytest.raises(InputError, match="expected the shape of an event"):
        Identity((1, 0))


def test_one_measurement_serves_all_rows(operator: LinearOperator) -> None:
    x, y = events(operator), measurements(operator, rows=1)
    repeated = y.expand(3, *y.shape[1:])
    torch.testing.assert_close(
        operator.prox(x, y, 0.3), operator.prox(x, repeated, 0.3), rtol=1e-8, atol=1e-9
    )


def test_a_field_that_is_being_estimated_gets_its_derivative() -> None:
    """An operator's own tensor may require a gradient: it is not frozen in a cache."""
    field = torch.ones(6, 5, dtype=torch.float64, requires_grad=True)
    x = _random((1, *PLANE), 30)
    operator = Multiplication(field, PLANE)
    for dtype in (torch.float64, torch.float32):
        (slope,) = torch.autograd.grad(operator(x.to(dtype)).sum(), field)
        torch.testing.assert_close(slope, x.sum((0, 1)), rtol=1e-6, atol=1e-6)
