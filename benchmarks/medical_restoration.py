"""Restoration of slices: every posterior sampler on one prior, classical methods beside them, tuned alike, then scored once.

Slices of 192 x 192 at 1 mm are rendered from label maps of people that no training saw. The samplers' settings are chosen on
slices of the validation people, by mean PSNR over 8 of them, from at most six settings a method and task. The table is of
slices of the test people, with other seeds of noise. A method without settings is not tuned.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.classical_restoration import tv_restoration, wavelet_restoration
from radiata_core.cubic_resampling import cubic_upsampling
from radiata_core.downsampling import AveragePooling
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.kspace_masks import random_lines
from radiata_core.masking import Masking
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity
from radiata_core.posterior import sample_posterior
from radiata_core.posterior_calibration import calibration, widened
from radiata_core.posterior_presets import (
    calibrated,
    ddnm,
    dds,
    diffpir,
    dps,
    flair,
    flowchef,
    flower,
    pnp_flow,
    relaxed_prox,
)
from radiata_core.posterior_spread import MeasuredSpread, measured_spread
from radiata_core.posterior_walk import PosteriorMethod
from radiata_core.restoration import RestorationModels, restore
from radiata_core.seeds import generator_of, generators_of
from radiata_core.times import KarrasGrid
from radiata_core.unrolled import UnrolledRestorer
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.synthesis import ScanSpec, head_of, synthesise
from radiata_medical.model.prior import SIGMA_DATA

SIZE = 192
EVALUATIONS = 50
TASKS = ("denoise", "sr2", "inpaint", "kspace4")
CONTRASTS = ("t1", "t1", "t2", "flair")


@dataclass(frozen=True, eq=False)
class Slices:
    """Rendered slices (n, 1, x, y), units of white, and whose they are."""

    images: Tensor
    people: tuple[str, ...]


def slices_of(store: LabelMaps, split: str, count: int, device: str, seed: int = 0) -> Slices:
    """Axial slices through the brain, the same number of every person of a split, contrasts in turn."""
    names = store.of_split(split)
    images, people = [], []
    for number in range(count):
        name = names[number % len(names)]
        head = head_of(store.read(name).codes)
        spec = ScanSpec(
            shape=(SIZE, SIZE, 1),
            contrasts=((CONTRASTS[number // len(names) % 4], 1.0),),
            inside=1.0,
            flip=False,
        )
        generator = generator_of(seed, 77, number)
        scan = synthesise(head, spec, generator)
        while float((scan.labels > 0).float().mean()) < 0.3:  # the crown of the head is no test of anything
            scan = synthesise(head, spec, generator)
        images.append(scan.image.permute(2, 0, 1))
        people.append(store.person(name))
    return Slices(torch.stack(images).to(device), tuple(people))


def operator_of(task: str, device: str) -> tuple[LinearOperator, float]:
    """A and the standard deviation of the noise (units of white; of real and imaginary part)."""
    shape = (1, SIZE, SIZE)
    if task == "denoise":
        return Identity(shape), 0.10
    if task == "sr2":
        return AveragePooling((2, 2), shape), 0.02
    if task == "inpaint":
        mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
        mask[70:110, 90:130] = False
        return Masking(mask.to(device), shape), 0.02
    mask = random_lines((SIZE, SIZE), 4, torch.Generator().manual_seed(4), middle=0.08)
    return FourierSampling(mask.to(device), shape, real=True), 0.02


Solver = Callable[[LinearOperator, Tensor, float, Sequence[torch.Generator]], Tensor]


class Methods:
    """Every method as a function of its settings; samplers share prior, number of evaluations and grid."""

    def __init__(self, prior: Any, restorer: UnrolledRestorer, spread: MeasuredSpread, device: str) -> None:
        self.prior, self.restorer, self.spread, self.device = prior, restorer, spread, device

    def settings(self, name: str) -> list[dict[str, Any]]:
        """At most six settings a method."""
        tops = (1.5, 4.5)

        def cross(key: str, values: Sequence[Any]) -> list[dict[str, Any]]:
            return [{key: v, "top": top} for v, top in itertools.product(values, tops)]

        return {
            "dps": cross("scale", (1.0, 3.0, 10.0)),
            "flowchef": cross("step", (0.3, 1.0, 1.7)),
            "flair": [
                {"regularisation": r, "top": 4.5, "calibrated": known}
                for r in (0.3, 0.5, 1.0)
                for known in (False, True)
            ],
            "diffpir": cross("strength", (0.3, 1.0, 3.0)),
            "flower": cross("data_variance", (0.05, 0.2, 1.0)),
            "pnp_flow": cross("power", (0.1, 0.4, 0.8)),
            "dds": cross("strength", (5.0, 50.0, 500.0)),
            "ddnm": [{"eta": eta, "top": top} for eta in (0.85, 1.0) for top in tops],
            "relaxed_prox": cross("weight", (0.3, 0.5, 0.8)),
            "tv": [{"weight": w} for w in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)],
            "wavelet": [{"weight": w} for w in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)],
        }.get(name, [{}])

    def sampler(self, name: str, settings: dict[str, Any]) -> PosteriorMethod:
        presets: dict[str, Callable[..., PosteriorMethod]] = {
            "dps": dps, "flowchef": flowchef, "flair": flair, "diffpir": diffpir, "flower": flower,
            "pnp_flow": pnp_flow, "dds": dds, "ddnm": ddnm, "relaxed_prox": relaxed_prox,
        }  # fmt: skip
        given = {key: value for key, value in settings.items() if key not in ("top", "validation_psnr")}
        if name == "flair" and given.pop("calibrated"):
            given["spread"] = self.spread
        return presets[name](**given)

    def solve(
        self,
        name: str,
        settings: dict[str, Any],
        operator: LinearOperator,
        y: Tensor,
        noise_sd: float,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """The estimate of a method, (batch, 1, x, y)."""
        if name == "zero_filled":
            return operator.pseudo_inverse(y)
        if name == "tricubic":
            return cubic_upsampling(operator, y)
        if name == "tv":
            return tv_restoration(operator, y, settings["weight"])
        if name == "wavelet":
            return wavelet_restoration(operator, y, settings["weight"], shifts=4)
        if (
            name == "radiata"
        ):  # the default: one evaluation of the prior for denoising, else the unrolled restorer
            models = RestorationModels(self.prior, self.restorer, self.spread, data_sd=SIGMA_DATA)
            return restore(models, operator, y, noise_sd, batch_size=len(y)).x
        if name == "unrolled":
            with torch.no_grad():
                return self.restorer.restore(operator, y, noise_sd)
        evaluations = 24 if name == "relaxed_prox" else EVALUATIONS
        times = KarrasGrid(sigma_min=0.01, sigma_max=settings["top"])(evaluations, self.prior.path)
        method = self.sampler(name, settings)
        return sample_posterior(self.prior, operator, y, noise_sd, times, method, generators).x


PEERS = ("diffpir", "flair", "flower", "pnp_flow")
SAMPLERS = ("dps", "flowchef", *PEERS, "dds", "ddnm", "relaxed_prox")
CLASSICAL = ("zero_filled", "tv", "wavelet")


def names_of(task: str) -> tuple[str, ...]:
    extra = {"denoise": ("unrolled",), "sr2": ("tricubic",)}.get(task, ())
    return ("radiata", *SAMPLERS, *CLASSICAL, *extra)


def psnr(x: Tensor, truth: Tensor) -> np.ndarray:
    """dB of every row for a range of 1 (white); (batch,)."""
    error = (x.double() - truth.double()).square().flatten(1).mean(1).cpu().numpy()
    return -10 * np.log10(np.maximum(error, 1e-12))


def measured(operator: LinearOperator, images: Tensor, noise_sd: float, seed: int) -> Tensor:
    """y of every image; the noise of a row from its own seed."""
    generators = generators_of(range(len(images)), 1000 + seed)
    return GaussianNoise(noise_sd)(operator(images), generators)


def spread_of(prior: Any, images: Tensor) -> MeasuredSpread:
    """The prior's error on validation slices, at a dozen levels."""
    kappas = torch.logspace(-2, 1, 13, dtype=torch.float64)
    times = prior.path.time_of_log_snr(-kappas.log())
    return measured_spread(prior, images, times, generators_of(range(len(images)), 5))


def tuned(methods: Methods, task: str, validation: Slices, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The best setting of every method on the validation slices."""
    operator, noise_sd = operator_of(task, methods.device)
    y = measured(operator, validation.images, noise_sd, 0)
    best = {}
    for name in names:
        scores = []
        for settings in methods.settings(name):
            generators = generators_of(range(len(y)), 2)
            try:
                found = methods.solve(name, settings, operator, y, noise_sd, generators)
                scores.append(float(np.nanmean(psnr(found, validation.images))))
            except Exception as error:  # a setting that diverges loses
                if type(error).__name__ != "InputError":
                    raise
                scores.append(-np.inf)
        best[name] = methods.settings(name)[int(np.argmax(scores))] | {"validation_psnr": max(scores)}
    return best


def scored(
    methods: Methods, task: str, test: Slices, settings: dict[str, dict[str, Any]], seeds: int, batch: int
) -> dict[str, np.ndarray]:
    """PSNR of every method, (seeds, images)."""
    operator, noise_sd = operator_of(task, methods.device)
    found: dict[str, np.ndarray] = {}
    for name in settings:
        rows = []
        for seed in range(seeds):
            y = measured(operator, test.images, noise_sd, 1 + seed)
            generators = generators_of(range(len(y)), 3, seed)
            parts = [
                psnr(
                    methods.solve(
                        name, settings[name], operator, y[a : a + batch], noise_sd, generators[a : a + batch]
                    ),
                    test.images[a : a + batch],
                )
                for a in range(0, len(y), batch)
            ]
            rows.append(np.concatenate(parts))
        found[name] = np.stack(rows)
    return found


def draws_of(
    methods: Methods, task: str, slices: Slices, draws: int, steps: int, top: float, batch: int, seed: int
) -> Tensor:
    """Draws of mode `sample`, (draws, images, 1, x, y)."""
    operator, noise_sd = operator_of(task, methods.device)
    y = measured(operator, slices.images, noise_sd, seed)
    times = KarrasGrid(sigma_min=0.01, sigma_max=top)(steps, methods.prior.path)
    method = calibrated(methods.spread)
    kept = []
    for draw in range(draws):
        generators = generators_of(range(len(y)), 4, draw, seed)
        kept.append(
            torch.cat(
                [
                    sample_posterior(
                        methods.prior,
                        operator,
                        y[a : a + batch],
                        noise_sd,
                        times,
                        method,
                        generators[a : a + batch],
                    ).x
                    for a in range(0, len(y), batch)
                ]
            )
        )
    return torch.stack(kept)


def calibration_of(
    methods: Methods,
    task: str,
    validation: Slices,
    test: Slices,
    *,
    draws: int = 19,
    steps: int = 24,
    batch: int = 8,
) -> dict[str, Any]:
    """Ratio of variance to squared error, and coverage of 90 % intervals, before and after one factor on the spread.

    The factor is the one that makes the ratio 1 on the validation slices. In inpainting the hole alone counts.
    """
    mask = None
    if task == "inpaint":
        operator, _ = operator_of(task, methods.device)
        hole = ~operator.mask  # type: ignore[attr-defined]
        mask = hole.to(methods.device)
    at = [
        draws_of(methods, task, slices, draws, steps, 4.5, batch, 50 + number)
        for number, slices in enumerate((validation, test))
    ]

    def of(values: Tensor, slices: Slices) -> Any:
        inside = None if mask is None else mask.expand(slices.images.shape)
        return calibration(values, slices.images, 0.9, inside)

    before = of(at[0], validation)
    factor = before.ratio**-0.5
    raw, after = of(at[1], test), of(widened(at[1], factor), test)
    error = (at[1].mean(0) - test.images).abs()
    deviation = at[1].std(0)
    chosen = slice(None) if mask is None else mask.expand(error.shape)
    pair = torch.stack([error[chosen].flatten(), deviation[chosen].flatten()]).double()
    return {
        "factor": factor,
        "ratio_before": raw.ratio,
        "ratio_after": after.ratio,
        "coverage90_before": raw.coverage,
        "coverage90_after": after.coverage,
        "nominal": after.nominal,
        "correlation_error_sd": float(torch.corrcoef(pair)[0, 1]),
        "psnr_of_mean": float(psnr(at[1].mean(0), test.images).mean()),
        "psnr_of_a_draw": float(psnr(at[1][0], test.images).mean()),
    }


def difference(
    a: np.ndarray, b: np.ndarray, people: Sequence[str], draws: int = 2000
) -> tuple[float, float, float]:
    """Mean of a - b over seeds and images, and its 95 % interval by bootstrap over people, then over their images."""
    gap = (a - b).mean(0)
    rng = np.random.default_rng(0)
    names = sorted(set(people))
    index = {name: np.flatnonzero(np.array(people) == name) for name in names}
    means = []
    for _ in range(draws):
        picked = rng.choice(len(names), len(names))
        means.append(np.mean([gap[rng.choice(index[names[p]], len(index[names[p]]))].mean() for p in picked]))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(gap.mean()), float(low), float(high)


def as_plain(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Settings for JSON."""
    return {
        name: {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in s.items()}
        for name, s in settings.items()
    }  # type: ignore[call-overload]
