"""What is added to a network, each beside what it is added to: the figures of the pages on backbones and additions.

    OMP_NUM_THREADS=1 python benchmarks/additions.py [--only SECTION ...] [--seeds 3] [--quick] [--json FILE]

A section is the module `additions_SECTION.py`, whose docstring says what is measured on what: backbones, routing, windows,
alignment, spiking, multitask, features, experts, volumes. Small networks on real data, equal steps (or equal CPU-seconds
where the section says so), the same data and noise for all arms of a seed.

A figure is the mean over seeds with the least and the most (subjects in place of seeds where a section says so). A claim is
a paper's, in its direction: it is compared seed by seed, and "held" counts the seeds in which it did.
"""

import argparse
import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from radiata_core.files import write_json

SECTIONS = (
    "backbones", "routing", "windows", "alignment", "spiking", "multitask", "features", "experts", "volumes",
)  # fmt: skip
Found = Mapping[str, Sequence[float]]


def print_figures(found: Found) -> None:
    """Mean (least … most) of every key."""
    width = max(map(len, found))
    for key, values in found.items():
        row = np.asarray(values, dtype=float)
        print(f"  {key:<{width}}  {row.mean():.4g} ({row.min():.4g} … {row.max():.4g})")


def claims_of(section: ModuleType, found: Found) -> list[dict[str, object]]:
    """Each claim with the seeds in which it held, and the paired difference; printed."""
    judged: list[dict[str, object]] = []
    for words, one, sign, other in section.CLAIMS:
        if one not in found or other not in found:
            continue
        difference = np.asarray(found[one], dtype=float) - np.asarray(found[other], dtype=float)
        held = int((difference < 0).sum() if sign == "<" else (difference > 0).sum())
        span = f"{difference.mean():+.4g} ({difference.min():+.4g} … {difference.max():+.4g})"
        print(f"  {words}: {one} {sign} {other} held in {held} of {len(difference)}, difference {span}")
        judged.append({"claim": words, "keys": [one, sign, other], "held": held, "of": len(difference)})
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a check that it runs; its figures mean nothing")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, object] = {"quick": options.quick, "seeds": options.seeds}
    for name in options.only:
        section = importlib.import_module(f"additions_{name}")
        began = time.process_time()
        print(f"{name}: {(section.__doc__ or '').splitlines()[0]}")
        found = section.measure(range(options.seeds), options.quick)
        print_figures(found)
        record |= {key: float(np.mean(values)) for key, values in found.items()}
        record[f"{name}_values"] = {key: list(map(float, values)) for key, values in found.items()}
        record[f"{name}_claims"] = claims_of(section, found)
        print(f"  {time.process_time() - began:.0f} CPU-seconds\n")
        if options.json:
            write_json(options.json, record)


if __name__ == "__main__":
    main()
