"""deepinv 0.5.0 beside radiata-core: its DPS, DiffPIR, DDRM and TV on the same prior, slices, operators and noise.

    OMP_NUM_THREADS=1 python benchmarks/peers/deepinv_restoration.py STORE [--site FOLDER] [--models FOLDER] [--images 4]
        [--tuning 2] [--evaluations 50] [--tasks TASK ...] [--json FILE]

STORE is that of `benchmarks/medical.py`, from which slices, operators, noise, PSNR and Radiata's methods are taken. What
deepinv has is run as it is, with its own schedules and its own linear solvers; one number a method is chosen on validation
slices, as it is for Radiata's. Images are divided by `RANGE`, because deepinv clips to [0, 1].

The second table asks whether two implementations of one algorithm agree: Radiata's loop on deepinv's noise levels, with the
strength in deepinv's units, the same first state and the same random numbers, on the prior cut to deepinv's range. PSNR
between the two results (120 is the most that is told) stands beside that between two of Radiata's own seeds. deepinv's
DiffPIR gives back its last state, with noise of 0.01 of half the range: 42.5 dB is agreement.

deepinv is never a dependency. Where it is absent this says how to get it, and exits 0.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import medical_restoration as slices
from radiata_core.checkpoint import load_model
from radiata_core.data_steps import Correction, Moment, Problem
from radiata_core.operators import LinearOperator
from radiata_core.posterior import sample_posterior
from radiata_core.posterior_presets import diffpir
from radiata_core.posterior_walk import PosteriorMethod
from radiata_core.renoising import AncestralShare, FixedShare, MixedNoise
from radiata_core.seeds import generators_of
from radiata_core.steering_steps import ResidualNormStep
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.model.weights import find_model

INSTALL = "pip install --no-deps --target FOLDER torchvision==0.28.0 deepinv==0.5.0 torchmetrics lightning-utilities natsort"
RANGE = 1.5  # times white: what deepinv takes for 1

_TORCHVISION_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "ps_roi_align",
    "roi_pool",
    "ps_roi_pool",
    "deform_conv2d",
)


def imported(site: Path | None) -> Any:
    """deepinv, or None. Its torchvision is of another build than torch: operators that nothing here calls are declared."""
    if site is not None:
        sys.path.append(str(site))  # last: what is installed counts first
    try:
        library = vars(vars(torch)["library"])["Library"]("torchvision", "DEF")
        for name in _TORCHVISION_OPERATORS:
            library.define(f"{name}(Tensor a) -> Tensor")
            library.define(f"_{name}_backward(Tensor a) -> Tensor")
        import deepinv
        import deepinv.physics
        import deepinv.sampling
    except ImportError as error:
        print(f"skipped: deepinv cannot be imported ({error}). {INSTALL}, then --site FOLDER")
        return None
    deepinv.kept_library = library  # the declarations live as long as this object
    return deepinv


@dataclass(frozen=True)
class Cut:
    """A denoiser whose estimates are clipped to deepinv's range, as some of its samplers do by themselves."""

    denoiser: Any

    @property
    def path(self) -> Any:
        return self.denoiser.path

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        found: Tensor = self.denoiser(x, t, **conditions).clamp(0.0, RANGE)
        return found


def physics_of(deepinv: Any, task: str, operator: LinearOperator, noise_sd: float) -> Any:
    """deepinv's own operator where it has it (denoising, inpainting), else ours in its clothes, with its CG."""
    noise = deepinv.physics.GaussianNoise(noise_sd / RANGE)
    if task == "denoise":
        return deepinv.physics.Denoising(noise)
    if task == "inpaint":
        mask = operator.mask.float()  # type: ignore[attr-defined]
        return deepinv.physics.Inpainting(
            tuple(operator.event_shape), mask.expand(operator.event_shape), noise_model=noise
        )
    return deepinv.physics.LinearPhysics(
        A=lambda x, **_: operator(x), A_adjoint=lambda y, **_: operator.adjoint(y), noise_model=noise
    )


class Prior(torch.nn.Module):
    """deepinv's contract `forward(x in [0, 1], sigma)` of a denoiser of the core."""

    def __init__(self, denoiser: Any) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: Any, *args: Any, **kwargs: Any) -> Tensor:
        kappa = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1)[0] * RANGE
        t = kappa / (1 + kappa)  # of the linear path: alpha = 1 - t
        found: Tensor = self.denoiser((x * RANGE * (1 - t)).to(torch.float32), t.to(torch.float32)) / RANGE
        return found


@dataclass(frozen=True)
class Peers:
    """deepinv's methods, each a function of one number."""

    deepinv: Any
    prior: Prior
    evaluations: int

    def settings(self, name: str) -> list[float]:
        return {
            "dps": [300.0, 1000.0, 3000.0],
            "diffpir": [0.6, 2.0, 7.0],
            "ddrm": [1.0, 3.0],
            "tv": [0.002, 0.005, 0.01, 0.02, 0.04, 0.08],
        }[name]

    def solve(
        self,
        name: str,
        value: float,
        task: str,
        operator: LinearOperator,
        y: Tensor,
        noise_sd: float,
        seed: int,
    ) -> Tensor:
        """The estimate, units of white."""
        d = self.deepinv
        physics = physics_of(d, task, operator, noise_sd)
        # Its inpainting measures zeros where nothing was seen; ours leaves them out.
        scaled = (operator.adjoint(y) if task == "inpaint" else y) / RANGE
        found: Tensor
        if name == "dps":
            rng = torch.Generator(y.device)
            model = d.sampling.DPS(
                self.prior, weight=value, num_steps=self.evaluations + 1, dtype=torch.float32, rng=rng
            )
            found = model(scaled, physics, x_init=(len(y), *operator.event_shape), seed=seed)
        elif name == "diffpir":
            fidelity = d.optim.data_fidelity.L2()
            model = d.sampling.DiffPIR(
                self.prior, fidelity, noise_sd / RANGE, max_iter=self.evaluations, zeta=1.0, lambda_=value
            )
            with torch.random.fork_rng(devices=[]):
                found = model(scaled, physics, seed=seed, x_init=physics.A_adjoint(scaled))
        elif name == "ddrm":
            levels = np.geomspace(value, 0.005, self.evaluations)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found = d.sampling.DDRM(self.prior, levels)(scaled, physics)
        else:
            step = 0.99 / float(operator.norm) ** 2
            prior = d.optim.prior.TVPrior(n_it_max=20)
            model = d.optim.FISTA(
                d.optim.data_fidelity.L2(), prior, lambda_reg=value / RANGE, stepsize=step, max_iter=60
            )
            found = model(scaled, physics, init=(physics.A_adjoint(scaled), physics.A_adjoint(scaled)))
        return found.float() * RANGE

    def names(self, task: str) -> tuple[str, ...]:
        return ("dps", "diffpir", *(("ddrm",) if task in ("denoise", "inpaint") else ()), "tv")


@dataclass(frozen=True)
class ScoreNormStep(ResidualNormStep):
    """deepinv's DPS: the gradient of the norm weighed as a score, by kappa^2 (1 - r^2), r = kappa_next/kappa."""

    def __call__(self, moment: Moment) -> Correction:
        pulled = super().__call__(moment)
        assert pulled.shift is not None
        ratio = moment.sigma_next / moment.alpha_next / moment.kappa
        # The shift of the parent is that of the state x_s for a gradient in x_t = alpha_t (x/alpha).
        factor = moment.kappa**2 * (1 - ratio**2) * moment.alpha_next * moment.alpha
        return Correction(pulled.estimate, pulled.shift * factor)


@dataclass(frozen=True)
class StartAbout(MixedNoise):
    """Radiata's walks start about 0; deepinv's DPS about grey, its DiffPIR about A^T y."""

    about: Callable[[Problem], Tensor | float] = lambda _: 0.0

    def start(
        self, problem: Problem, guess: Tensor | None, like: Tensor, alpha: float, sigma: float
    ) -> Tensor:
        return alpha * self.about(problem) + sigma * like


def same_algorithm(
    peers: Peers, name: str, value: float, operator: LinearOperator, y: Tensor, noise_sd: float, seed: int
) -> Tensor:
    """Radiata's loop at deepinv's noise levels, strength and random numbers (of one row)."""
    generator = torch.Generator().manual_seed(seed)
    if name == "dps":
        u = torch.linspace(1, 0, peers.evaluations + 1, dtype=torch.float64)[:-1]
        kappa = torch.sqrt(torch.expm1(0.1 * u + 0.5 * u**2 * (20 - 0.1))) * RANGE / 2
        # Its kappa is 2/RANGE of ours; the gradient of a norm is the same in any unit, the shift in units of the image.
        step = ScoreNormStep(value / RANGE)
        method = PosteriorMethod(step, StartAbout(AncestralShare(1.0), about=lambda _: RANGE / 2))
    else:
        beta = torch.linspace(0.1 / 1000, 20 / 1000, 1000, dtype=torch.float32)
        cumulated = torch.cumprod(1 - beta, 0).double()
        level = torch.sqrt((1 - cumulated) / cumulated).flip(0)
        at = torch.sqrt(torch.linspace(0.0, 1000.0**2, peers.evaluations)).int()
        at[-1] -= 1
        kappa = level[at.long()][:-1] * RANGE / 2
        start = StartAbout(FixedShare(1.0), corrected=True, about=lambda p: p.operator.adjoint(p.y))
        # Its levels are those of [-1, 1] and its prox is in [0, 1], with rho written for the former: half the lambda.
        method = dataclasses.replace(diffpir(value / 2, 1.0), renoising=start)
    times = torch.cat([kappa / (1 + kappa), torch.zeros(1, dtype=torch.float64)])
    return sample_posterior(peers.prior.denoiser, operator, y, noise_sd, times, method, [generator]).x


def chosen(
    name: str, candidates: list[Any], solve: Callable[[Any], Tensor], truth: Tensor
) -> tuple[Any, float]:
    """The candidate of the highest mean PSNR."""
    scores = [
        float(np.nan_to_num(slices.psnr(solve(value), truth), nan=-99.0).mean()) for value in candidates
    ]
    best = int(np.argmax(scores))
    return candidates[best], scores[best]


def each(y: Tensor, solve: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, float]:
    """Rows one after another, and CPU-seconds a row."""
    start = time.process_time()
    found = torch.cat([solve(y[row : row + 1], 1 + row) for row in range(len(y))])
    return found, (time.process_time() - start) / len(y)


def compare(
    peers: Peers, ours: slices.Methods, task: str, held: slices.Slices, test: slices.Slices
) -> dict[str, Any]:
    """PSNR and CPU-seconds of deepinv's and of Radiata's methods."""
    operator, noise_sd = slices.operator_of(task, "cpu")
    y_held = slices.measured(operator, held.images, noise_sd, 0)
    y = slices.measured(operator, test.images, noise_sd, 1)
    rows: dict[str, Any] = {}

    def note(name: str, setting: Any, solve: Callable[[Tensor, int], Tensor]) -> None:
        found, seconds = each(y, solve)
        values = slices.psnr(found, test.images)
        rows[name] = {
            "psnr": float(values.mean()),
            "each": values.tolist(),
            "cpu_s": seconds,
            "setting": setting,
        }
        print(f"{task:8} {name:18} {values.mean():6.2f} dB  {seconds:6.2f} CPU-s  {setting}", flush=True)

    for name in peers.names(task):

        def peer(value: float, y: Tensor, seed: int, name: str = name) -> Tensor:
            return peers.solve(name, value, task, operator, y, noise_sd, seed)

        best, _ = chosen(
            name,
            peers.settings(name),
            lambda value: each(y_held, lambda rows, seed: peer(value, rows, seed))[0],
            held.images,
        )
        note(f"deepinv {name}", best, lambda rows, seed: peer(best, rows, seed))  # noqa: B023
    for name in ("dps", "diffpir", "tv", "radiata"):

        def own(settings: Any, y: Tensor, seed: int, name: str = name) -> Tensor:
            return ours.solve(name, settings, operator, y, noise_sd, generators_of([seed], 3))

        best, _ = chosen(
            name,
            ours.settings(name),
            lambda settings: each(y_held, lambda rows, seed: own(settings, rows, seed))[0],
            held.images,
        )
        note(f"radiata {name}" if name != "radiata" else name, best, lambda rows, seed: own(best, rows, seed))  # noqa: B023
    return rows


def agreement(peers: Peers, task: str, settings: dict[str, float], image: Tensor) -> dict[str, Any]:
    """PSNR between both implementations on one measurement, and between two seeds of one of them."""
    operator, noise_sd = slices.operator_of(task, "cpu")
    y = slices.measured(operator, image, noise_sd, 1)
    rows = {}
    for name, value in settings.items():
        theirs = peers.solve(name, value, task, operator, y, noise_sd, 7)
        own = [same_algorithm(peers, name, value, operator, y, noise_sd, seed) for seed in (7, 8)]
        rows[name] = {
            "between_implementations": float(slices.psnr(own[0], theirs)[0]),
            "between_seeds": float(slices.psnr(own[0], own[1])[0]),
            "psnr_deepinv": float(slices.psnr(theirs, image)[0]),
            "psnr_radiata": float(slices.psnr(own[0], image)[0]),
        }
        told = ", ".join(f"{key} {number:.2f}" for key, number in rows[name].items())
        print(f"{task:8} {name:8} at {value:g}: {told} dB", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--site", type=Path, help="folder into which deepinv was installed")
    parser.add_argument(
        "--models", type=Path, help="folder of runs prior-2d and restorer-2d; else the shipped ones"
    )
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tuning", type=int, default=2, help="validation slices that settings are chosen on")
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--tasks", nargs="+", choices=slices.TASKS, default=list(slices.TASKS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    deepinv = imported(arguments.site)
    if deepinv is None:
        return
    torch.set_num_threads(1)
    slices.EVALUATIONS = arguments.evaluations
    prior, restorer = (
        load_model(arguments.models / name if arguments.models else find_model(name)).denoiser
        for name in ("prior-2d", "restorer-2d")
    )
    with LabelMaps(arguments.store) as store:
        held = slices.slices_of(store, "validation", arguments.tuning, "cpu", seed=1)
        test = slices.slices_of(store, "test", arguments.images, "cpu", seed=2)
    peers = Peers(deepinv, Prior(prior), arguments.evaluations)
    cut = Peers(deepinv, Prior(Cut(prior)), arguments.evaluations)
    ours = slices.Methods(prior, restorer, slices.spread_of(prior, held.images[:1]), "cpu")
    figures: dict[str, Any] = {"evaluations": arguments.evaluations, "images": len(test.images)}
    for task in arguments.tasks:
        rows = compare(peers, ours, task, held, test)
        settings = {name: rows[f"deepinv {name}"]["setting"] for name in ("dps", "diffpir")}
        figures[task] = {"methods": rows, "agreement": agreement(cut, task, settings, test.images[:1])}
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
