"""What a prior's card says of its errors: r^2 at each noise level, and the factor that makes its draws as wide as they are.

Both are measured on rendered windows of the validation people. The first drives the data step of mode `sample` and tells
whether a scan looks like the training data. The second (`widening`) is the root of squared error over variance, averaged
over four measurements: denoising, a hole, a quarter of k-space, and slices of four voxels.

References:
    `radiata_core.posterior_spread` (r^2) and `radiata_core.posterior_calibration` (variance over error).
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import Denoiser
from radiata_core.downsampling import thick_slices
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.kspace_masks import random_lines
from radiata_core.masking import Masking, lesion
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity
from radiata_core.posterior_calibration import calibration
from radiata_core.posterior_spread import measured_spread
from radiata_core.restoration import RestorationModels, restore
from radiata_core.seeds import generator_of, generators_of
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.synthesis import ScanSpec, head_of, synthesise

__all__ = ["calibrate", "calibrated_metadata", "validation_windows"]


def calibrate(
    models: Sequence[Path],
    store: LabelMaps,
    dims: int,
    window: int,
    count: int,
    *,
    rendered: bool = True,
    device: str = "cpu",
) -> None:
    """Measure priors on the validation people of a store and write what was found into their cards.

    Without validation people nothing is measured, and a line on standard error says so. Of several processes the first
    does it.

    Args:
        models: Model files, replaced whole.
        store: Label maps.
        dims: Of the priors.
        window: Voxels an axis of a window.
        count: Windows, >= 1.
        rendered: See `validation_windows`.
        device: Where the priors run.
    """
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    if not store.of_split("validation"):
        print(
            "the card says nothing of the prior's errors: the store has no validation case", file=sys.stderr
        )
        return
    print(f"measuring the prior on {count} windows of validation people", file=sys.stderr)
    windows = validation_windows(store, dims, window, count, rendered=rendered)
    for path in models:
        loaded = load_model(path)
        found = calibrated_metadata(
            loaded.denoiser.to(device),  # type: ignore[arg-type]
            windows,
            float(loaded.metadata["sigma_data"]),
        )
        save_model(path, loaded.denoiser.cpu(), metadata=loaded.metadata | found)


def validation_windows(
    store: LabelMaps, dims: int, window: int, count: int, seed: int = 0, *, rendered: bool = True
) -> Tensor:
    """Windows of the validation people in turn, `(count, 1, *window)`, units of white, on the CPU.

    Args:
        store: Label maps; with `rendered=False` their scans too.
        dims: 2 for slices of any direction, 3 for blocks.
        window: Voxels an axis.
        count: Windows.
        seed: Of contrast, place and deformation.
        rendered: False takes the scans that came with the maps.
    """
    names = store.of_split("validation")
    shape = (window, window, 1 if dims == 2 else window)
    spec = ScanSpec(shape=shape, turn=dims == 2, inside=1.0, rendered=rendered)
    images = []
    for number in range(count):
        case = store.read(names[number % len(names)])
        head = head_of(case.codes, image=None if rendered else case.image)
        image = synthesise(head, spec, generator_of(seed, 91, number)).image
        images.append(image[..., 0] if dims == 2 else image)
    return torch.stack(images)[:, None]


def _measurements(event: tuple[int, ...], device: torch.device) -> list[tuple[LinearOperator, float]]:
    space, generator = event[1:], torch.Generator().manual_seed(3)
    observed = lesion(space, generator, 0.15 * space[0])
    lines = random_lines(space, 4, generator)
    return [
        (Identity(event), 0.1),
        (Masking(observed.to(device), event), 0.02),
        (FourierSampling(lines.to(device), event, real=True), 0.02),
        (thick_slices(event, -1, 4), 0.02),
    ]


def calibrated_metadata(
    prior: Denoiser,
    windows: Tensor,
    sigma_data: float,
    *,
    draws: int = 8,
    evaluations: int = 12,
    batch: int = 4,
) -> dict[str, Any]:
    """The entries `spread`, `widening` and `variance_error_ratios` (before widening) of a prior's card.

    Args:
        prior: On the device where it is to be measured.
        windows: Held-out windows, (n, 1, *grid).
        sigma_data: Root mean square of the data.
        draws: Of each measurement.
        evaluations: Of each draw.
        batch: Rows a call.
    """
    device = next(prior.parameters()).device  # type: ignore[attr-defined]
    windows = windows.to(device)
    kappas = torch.logspace(-2, 1, 13, dtype=torch.float64)
    times = prior.path.time_of_log_snr(-kappas.log())
    spread = measured_spread(prior, windows, times, generators_of(range(len(windows)), 92))
    models = RestorationModels(prior, None, spread, 1.0, sigma_data)
    ratios = []
    for number, (operator, noise_sd) in enumerate(_measurements(tuple(windows.shape[1:]), device)):
        y = GaussianNoise(noise_sd)(operator(windows), generators_of(range(len(windows)), 93, number))
        found = restore(
            models, operator, y, noise_sd, "sample", evaluations=evaluations, draws=draws, batch_size=batch
        )
        assert found.draws is not None
        inside = None
        if isinstance(operator, Masking):
            inside = (~operator.mask).to(device).expand(windows.shape)
        level = 1 - 2 / (draws + 1)
        ratios.append(calibration(found.draws, windows, level, inside).ratio)
    widening = math.exp(-0.5 * sum(math.log(ratio) for ratio in ratios) / len(ratios))
    return {
        "spread": {"kappa": list(spread.kappas), "variance": list(spread.mean_squared_errors)},
        "widening": widening,
        "variance_error_ratios": dict(zip(("denoise", "inpaint", "kspace4", "thick4"), ratios, strict=True)),
    }
