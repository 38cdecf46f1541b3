"""Decoding from fMRI in figures: the shared ridge, pictures, motion and categories, in one run.

    OMP_NUM_THREADS=1 python benchmarks/decode.py [--only ridge image motion haxby] [--seeds 3] [--quick] [--json FILE]

ridge    the shared ridge beside scikit-learn's in a loop (`decode_ridge.py`)
image    a simulated cortex that looks at crops of real photographs (`decode_image.py`), and at
         photographs that it never saw (`decode_scenes.py`)
motion   a simulated cortex with MT that watches moved photographs (`decode_motion.py`)
haxby    real BOLD, one slice: eight categories by block, each of twelve runs held out once

A seed is another person who saw other stimuli. Simulated responses have noise ceilings as at 7 T; they are no evidence of
how well a real brain is decoded. Reconstructions are outputs of models; not for clinical use.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from decode_image import image_section
from decode_motion import motion_section
from decode_ridge import ridge_section
from decode_scenes import scenes_section
from radiata_decode.experiment.category_decoding import decode_blocks

KEYS = (
    "ridge_speed_ratio", "ridge_max_abs_diff", "pixcorr", "twoway", "pixcorr_ridge", "twoway_ridge", "pixcorr_ceiling",
    "epe", "epe_zero", "flow_corr", "flow_corr_permuted", "haxby_accuracy",
)  # fmt: skip


def haxby_section(*, quick: bool = False) -> dict[str, Any]:
    """Accuracy by block with its interval over runs, chance and p."""
    found = decode_blocks(permutations=100 if quick else 1000)
    low, high = found.interval
    print(
        f"haxby, {len(found.truth)} blocks of {len(found.categories)} categories, each run held out: accuracy "
        f"{found.accuracy:.3f} [{low:.3f}, {high:.3f}], chance {found.chance:.3f}, p {found.p:.4f}",
        flush=True,
    )
    nested = decode_blocks(orders=(0, 1, 2, 3), permutations=0)
    ends = "[{:.3f}, {:.3f}]".format(*nested.interval)
    print(f"  order of the polynomial chosen within the training runs too: {nested.accuracy:.3f} {ends}")
    return {
        "haxby_accuracy": found.accuracy,
        "haxby_interval": [low, high],
        "haxby_chance": found.chance,
        "haxby_p": found.p,
        "haxby_accuracy_nested": nested.accuracy,
        "haxby_interval_nested": list(nested.interval),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed and little data, to see that it runs")
    parser.add_argument("--seeds", type=int, default=3, help="people of the simulations")
    parser.add_argument("--only", nargs="*", choices=("ridge", "image", "motion", "haxby"), help="sections")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, quick = 1 if arguments.quick else arguments.seeds, arguments.quick
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "ridge": lambda: ridge_section(quick=quick),
        "image": lambda: image_section(seeds=seeds, quick=quick) | scenes_section(seeds=seeds, quick=quick),
        "motion": lambda: motion_section(seeds=seeds, quick=quick),
        "haxby": lambda: haxby_section(quick=quick),
    }
    figures: dict[str, Any] = {"seeds": seeds, "quick": quick, "cpu_seconds": {}}
    for name in arguments.only or sections:
        start = time.process_time()
        figures |= sections[name]()
        figures["cpu_seconds"][name] = round(time.process_time() - start, 1)
    print(
        "CPU-seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in figures["cpu_seconds"].items())
    )
    for key in KEYS:
        if key in figures:
            print(f"{key:20} {figures[key]:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
