"""The report of docs/diagnostics.md on the shipped T1 model: at its own samples, and at heads that no training saw.

python docs/scripts/diagnose_t1.py [--store cohort.h5] [--json FILE]

The store is what `radiata-t1 cohort LABELS --validation 07 14 --test 06 13` writes; without one, samples only.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radiata_core.analytic import wiener_denoiser
from radiata_core.checkpoint import load_model
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.diagnostics import Progress, diagnose, level_times
from radiata_core.intrinsic_dimension import flipd
from radiata_core.jacobians import hutchinson
from radiata_core.likelihood import log_likelihood
from radiata_core.seeds import generators_of
from radiata_core.straight_coordinates import FixedSteps
from radiata_t1.model.samplers import Sampler, SamplerName
from radiata_t1.model.weights import DEFAULT, find_model

SHAPE = (1, 48, 56, 48)
HEADS = 3
"""Of each of the two test people, and twice as many samples."""


def held_out(path: Path) -> Tensor:
    """Heads of the test split, the first of each person, (heads, 1, x, y, z)."""
    from radiata_imaging.store import Store

    store = Store(path)
    index = store.indices("test")
    people = store.subjects[index]
    keep = np.concatenate([index[people == person][:HEADS] for person in np.unique(people)])
    return torch.from_numpy(np.stack([store.array(i) for i in keep]))[:, None]


def bits(denoiser, x0, generators, **conditions) -> Tensor:
    """Bits an element of the density at sigma/alpha = 0.1, in units of the data, one probe."""
    t_min = float(level_times(denoiser.path, (0.1,)))
    found = log_likelihood(
        denoiser, x0, hutchinson(x0, generators), solver=FixedSteps(8), t_min=t_min, **conditions
    )
    return found.bits_per_dim


def dimension(denoiser, x0, generators, kappa: float = 0.1, **conditions) -> Tensor:
    """FLIPD at kappa, eight probes."""
    times = level_times(denoiser.path, (kappa,))
    return flipd(denoiser, x0, times, hutchinson(x0, generators, 8), **conditions).dimension


def told(start: float, progress: Progress) -> None:
    print(f"{time.time() - start:5.0f} s  {progress.done}/{progress.total}  {progress.part}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    denoiser = load_model(find_model(DEFAULT)).denoiser.eval()
    assert isinstance(denoiser, NetworkDenoiser)
    denoiser.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    with torch.inference_mode():
        drawn = Sampler(SamplerName.UNIPC_2, 20)(denoiser, list(range(2 * HEADS)), SHAPE)
    sets = {"samples": drawn.clone()}
    if arguments.store is not None:
        sets["held-out heads"] = held_out(arguments.store)
    # What the same numbers are, in the same float32 and size, where the answer is 0: a Gaussian fitted to the samples.
    floor = wiener_denoiser(drawn.clone(), denoiser.path, 4)
    jobs = [(DEFAULT, denoiser, name, heads) for name, heads in sets.items()]
    reports = {}
    for model, subject, name, heads in [*jobs, ("exact Gaussian", floor, "samples", sets["samples"])]:
        report = diagnose(
            subject,
            heads,
            generators_of(range(len(heads)), 1),
            loop_points=12,
            path_points=4,
            elements=torch.arange(4) + 48 * 56 * 24 + 48 * 28 + 22,
            measures={"bits an element at κ = 0.1": bits, "FLIPD at κ = 0.1": dimension},
            rows=2,
            callback=partial(told, time.time()),
        )
        print(f"{model}, {name}: {report}\n")
        reports[f"{model}, {name}"] = report.to_dict()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(reports, indent=1))


if __name__ == "__main__":
    main()
