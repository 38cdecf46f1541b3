"""Conditional T1 by a plugged-in classifier: heads with large or small ventricles from a generator that is told of neither.

    OMP_NUM_THREADS=1 python benchmarks/medical_guidance.py [--store cohort.h5] [--labels FOLDER] [--quick] [--json FILE]

A small classifier of clean heads (ventricles above 35 ml or not, trained on the cohort's training people) guides the shipped
T1 generator, whose own covariates are left unknown:

unguided      the same seeds without a guide
naive         the classifier as it is, on noisy heads: grad log f(x_t)
experts       PPAP: five low-rank experts over ranges of noise, taught on samples of the generator alone, without labels
skipped       the classifier on the clean estimate, grad log f(D(x_t)), gradient of the generator skipped
condition     the generator's own covariate `ventricles_ml` at 60 or 10: what a model trained for it does

Measured: fluid in a central ellipsoid (t1_quality.central_fluid, ml), the share of heads that the classifier then calls
as asked, and the distance to the training heads' mean spectrum (dB) as a sign of damage. Intervals are over seeds.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from radiata_core.checkpoint import load_model
from radiata_core.generated_sets import generated_set
from radiata_core.noise_experts import (
    ClassifierGuided,
    ExpertLogProbability,
    KnowledgeTransfer,
    NoiseExperts,
    SkippedGradient,
    log_probability_of,
)
from radiata_core.posterior_spread import measured_spread
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim
from radiata_core.times import LogSNRGrid
from radiata_imaging.spectra import RadialBins, log_power
from radiata_imaging.store import Store
from radiata_t1.data.covariates import CovariateScale
from radiata_t1.model.weights import find_model
from t1_quality import central_fluid, heads, interval, store_of

LARGE = 35.0
"""Millilitres of ventricles from which a head is large: near the median of the cohort."""
STEPS = 20


def classifier(seed: int) -> nn.Sequential:
    """Clean heads (n, 1, x, y, z) to logits of small and large, 60 000 parameters."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    widths = (1, 12, 24, 48)
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv3d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d((3, 3, 3)), nn.Flatten(), nn.Linear(48 * 27, 2))


def labelled(store: Store, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Heads and whether their ventricles are large."""
    images, _ = heads(store, split)
    column = list(store.covariate_names).index("ventricles_ml")
    millilitres = store.covariates[store.indices(split), column]
    return images, torch.from_numpy((millilitres > LARGE).astype(np.int64))


def fitted(images: torch.Tensor, labels: torch.Tensor, steps: int) -> nn.Sequential:
    """The classifier, trained on clean heads with a little noise (a fifteenth of the range at most)."""
    network = classifier(0).train()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        generator = generator_of(0, 51, step)
        rows = torch.randint(len(images), (16,), generator=generator)
        noisy = images[rows] + 0.1 * torch.rand(1, generator=generator) * torch.randn(
            images[rows].shape, generator=generator
        )
        loss = nn.functional.cross_entropy(network(noisy), labels[rows], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def experts_of(network: nn.Module, denoiser: Any, samples: torch.Tensor, steps: int) -> NoiseExperts:
    """PPAP's transfer: low-rank experts learn what the classifier says of clean samples from noisy ones."""
    torch.manual_seed(1)
    scale = float(samples.square().mean().sqrt())
    experts = NoiseExperts(network, denoiser.path, rank=8, sigma_data=scale)
    objective = KnowledgeTransfer(denoiser.path)
    trained = [p for p in experts.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        rows = torch.randint(len(samples), (16,), generator=generator_of(0, 52, step))
        loss = objective(experts.train(), samples[rows], generators_of(range(16), 53, step)).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return experts.eval()


def drawn(denoiser: Any, count: int, event: tuple[int, ...], **conditions: torch.Tensor) -> np.ndarray:
    """Heads (n, x, y, z) of the seeds 0 .. count - 1, DDIM on a log-SNR grid."""
    table = ddim(LogSNRGrid()(STEPS, denoiser.path), denoiser.path)
    parts = []
    with torch.no_grad():
        for first in range(0, count, 4):
            noise = noise_of(
                generators_of(range(first, min(first + 4, count)), 0), event, torch.float32, "cpu"
            )
            given = {name: rows[: len(noise)] for name, rows in conditions.items()}
            parts.append(integrate(denoiser, noise, table, **given)[:, 0].clamp(-1, 1))
    return torch.cat(parts).numpy()


def guided_by(wanted: int, experts: NoiseExperts, denoiser: Any, spread: Any) -> dict[str, Any]:
    """Name -> guided denoiser, each at weights 1 and 4, towards a class."""
    target = torch.tensor([wanted])
    found: dict[str, Any] = {}
    for weight in (1.0, 4.0):
        found[f"naive x{weight:g}"] = ClassifierGuided(
            denoiser, lambda x, t: log_probability_of(experts.clean(x), target), weight
        )
        found[f"experts x{weight:g}"] = ClassifierGuided(
            denoiser, ExpertLogProbability(experts, target), weight
        )
        found[f"skipped x{weight:g}"] = SkippedGradient(
            denoiser, lambda x: log_probability_of(experts.clean(x), target), spread, weight, largest=0.5
        )
    return found


def figures_of(store: Store, quick: bool) -> dict[str, Any]:
    """Every row of the table."""
    loaded = load_model(find_model("rflow-4mm"))
    denoiser: Any = loaded.denoiser.eval()
    denoiser.network.to(memory_format=torch.channels_last_3d)
    event = (1, *denoiser.network.options["shape"])
    images, labels = labelled(store, "train")
    test, answers = labelled(store, "test")
    network = fitted(images, labels, 60 if quick else 400)
    with torch.no_grad():
        accuracy = float((network(test).argmax(1) == answers).float().mean())
    share = float(answers.float().mean())
    print(
        f"classifier: {accuracy:.2f} right on {len(test)} heads of test people, of which {share:.2f} are large"
    )
    table = ddim(LogSNRGrid()(8, denoiser.path), denoiser.path)
    with torch.no_grad():
        samples = generated_set(
            denoiser, 8 if quick else 48, event, table, first_seed=1000, batch_size=4
        ).images
    validation, _ = heads(store, "validation", 4)
    times = denoiser.path.time_of_log_snr(-torch.logspace(-2, 1.3, 12, dtype=torch.float64).log())
    with torch.no_grad():
        spread = measured_spread(denoiser, validation, times, generators_of(range(len(validation)), 54))
    began = time.process_time()
    experts = experts_of(network, denoiser, samples, 20 if quick else 400)
    print(
        f"experts: {time.process_time() - began:.0f} CPU-s on {len(samples)} samples of the generator, no label"
    )
    scale = CovariateScale.from_metadata(loaded.metadata)
    count = 4 if quick else 16
    bins = RadialBins(event[1:], (4.0, 4.0, 4.0))
    reference = spectrum(images[:64, 0].numpy(), bins)
    free = drawn(denoiser, count, event)
    figures: dict[str, Any] = {"accuracy": accuracy}
    for wanted, (word, millilitres) in enumerate((("small", 10.0), ("large", 60.0))):
        sets = {"unguided": free}
        guided = guided_by(wanted, experts, denoiser, spread)
        sets |= {name: drawn(guide, count, event) for name, guide in guided.items()}
        row = torch.from_numpy(scale.row({"ventricles_ml": millilitres})).expand(4, -1)
        sets["condition"] = drawn(denoiser, count, event, covariates=row)
        for name, made in sets.items():
            figures[f"{word}: {name}"] = judged(made, free, wanted, experts, bins, reference)
    return figures


def spectrum(made: np.ndarray, bins: RadialBins) -> np.ndarray:
    """Mean log power of heads (n, x, y, z) in each shell, dB."""
    return np.mean([log_power(bins.power(head)) for head in made], axis=0)


def judged(
    made: np.ndarray,
    free: np.ndarray,
    wanted: int,
    experts: NoiseExperts,
    bins: RadialBins,
    reference: np.ndarray,
) -> dict[str, Any]:
    """Fluid, its change over the unguided heads of the same seeds, the share called as asked, the spectrum's distance."""
    fluid, change = central_fluid(made), central_fluid(made) - central_fluid(free)
    with torch.no_grad():
        share = float((experts.clean(torch.from_numpy(made)[:, None]).argmax(1) == wanted).float().mean())
    distance = float(np.sqrt(np.mean((spectrum(made, bins) - reference)[bins.shown] ** 2)))
    return {
        "fluid_ml": float(fluid.mean()),
        "change_ml": float(change.mean()),
        "change_interval": interval(change),
        "called": share,
        "spectrum_db": distance,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = store_of(arguments, Path(folder))
        if path is None:
            raise SystemExit("needs --store or --labels")
        figures = figures_of(Store(path), arguments.quick)
    for name, row in figures.items():
        if isinstance(row, dict):
            low, high = row["change_interval"]
            told = (
                f"fluid {row['fluid_ml']:5.1f} ml, change {row['change_ml']:+5.1f} [{low:+.1f}, {high:+.1f}]"
            )
            print(f"{name:20} {told}, called so {row['called']:.2f}, spectrum {row['spectrum_db']:.2f} dB")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
