"""Restoration and segmentation, beside what else there is, in one run.

    OMP_NUM_THREADS=1 python benchmarks/medical.py STORE [--only SECTION ...] [--device auto] [--quick] [--json FILE]
        [--models FOLDER]

STORE is a store of label maps with people in train, validation and test (radiata-medical prepare).

restore      24 slices x 3 seeds of noise: denoise (10 %), sr2 (2 x 2 means), inpaint (a hole of 40 x 40 mm), kspace4 (a
             quarter of the lines). PSNR in dB for a range of 1 (white). Samplers share one prior and 50 evaluations.
sample       19 draws: variance over squared error and coverage of 90 % intervals, before and after one factor that
             is measured on validation slices.
volume       whole heads at 1 mm from 4 mm slices and from a quarter of k-space: 3-D in blocks, 2-D by planes, TV in 3-D.
segment      whole heads: Dice by tissue on test people, calibration, real heads beside MeshNet (--scans, --judge).
fewshot      8 and 64 labelled slices: heads on the prior's features, U-Net from scratch, equal CPU-seconds.
anomaly      average precision of lesion maps, beside chance and scores that need no prior (--lesions: real shapes).
translate    T1, T2 and FLAIR made of each other: error in the brain beside curve, painting and histogram matching.
timing       CPU-seconds of one thread and peak memory of a fresh process, a slice at a time.
"""

import argparse
import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medical_anomaly
import medical_fewshot
import medical_restoration as slices
import medical_segmentation
import medical_translation
import medical_volumes
from radiata_core.checkpoint import load_model
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.model.weights import find_model


def join(figures: dict[str, Any], others: dict[str, Any]) -> None:
    """Add the figures of another run; where both have one, the other's counts."""
    for key, value in others.items():
        if isinstance(value, dict) and isinstance(figures.get(key), dict):
            join(figures[key], value)
        else:
            figures[key] = value


def models_of(arguments: argparse.Namespace, device: str) -> tuple[Any, Any]:
    """Prior and restorer of slices."""
    found = []
    for name in ("prior-2d", "restorer-2d"):
        path = arguments.models / name if arguments.models else find_model(name)
        found.append(load_model(path).denoiser.to(device))
    return found[0], found[1]


def setting(
    arguments: argparse.Namespace, device: str
) -> tuple[slices.Methods, slices.Slices, slices.Slices]:
    prior, restorer = models_of(arguments, device)
    with LabelMaps(arguments.store) as store:
        validation = slices.slices_of(store, "validation", 2 if arguments.quick else 8, device, seed=1)
        test = slices.slices_of(store, "test", 4 if arguments.quick else 24, device, seed=2)
    spread = slices.spread_of(prior, validation.images)
    return slices.Methods(prior, restorer, spread, device), validation, test


def restore(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    methods, validation, test = setting(arguments, device)
    figures: dict[str, Any] = {}
    for task in arguments.tasks:
        names = [n for n in slices.names_of(task) if not arguments.methods or n in arguments.methods]
        chosen = slices.tuned(methods, task, validation, names)
        found = slices.scored(methods, task, test, chosen, 1 if arguments.quick else 3, arguments.batch)
        rows: dict[str, Any] = {}
        for name, values in sorted(found.items(), key=lambda item: -item[1].mean()):
            mean, low, high = slices.difference(found.get("radiata", values), values, test.people)
            rows[name] = {
                "psnr": float(values.mean()),
                "each": values.tolist(),
                "sd_over_seeds": float(values.mean(1).std()),
                "gain": mean,
                "interval": (low, high),
                "settings": chosen[name],
            }
            told = ", ".join(f"{k} {v}" for k, v in chosen[name].items() if k != "validation_psnr")
            print(
                f"{task:8} {name:13} {values.mean():6.2f} dB   radiata {mean:+.2f} [{low:+.2f}, {high:+.2f}]   {told}",
                flush=True,
            )
        figures[task] = {
            "methods": rows,
            "validation_people": sorted(set(validation.people)),
            "test_people": sorted(set(test.people)),
        }
    return figures


def sample(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    methods, validation, test = setting(arguments, device)
    figures = {}
    for task in arguments.tasks:
        figures[task] = slices.calibration_of(
            methods, task, validation, test, draws=19, batch=arguments.batch
        )
        print(task, {key: round(value, 3) for key, value in figures[task].items()}, flush=True)
    return figures


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The keys that are asked for, from the sections that there are."""
    found: dict[str, Any] = {}
    gains: dict[str, list[float]] = {"dps": [], "tv": [], "best_peer": []}
    for task in slices.TASKS:
        rows = figures.get("restore", {}).get(task, {}).get("methods")
        if rows is not None:
            if not all(name in rows for name in ("dps", "tv", "flowchef", *slices.PEERS)):
                continue
            peer = max(slices.PEERS, key=lambda name: rows[name]["psnr"])
            old = max(
                (n for n in (*slices.CLASSICAL, "tricubic") if n in rows), key=lambda n: rows[n]["psnr"]
            )
            for name in ("radiata", "dps", "flowchef", "flair", "diffpir"):
                found[f"psnr_{name}_{task}"] = rows[name]["psnr"]
            found[f"psnr_best_classical_{task}"], found[f"best_classical_{task}"] = rows[old]["psnr"], old
            found[f"psnr_best_posterior_peer_{task}"], found[f"best_peer_{task}"] = rows[peer]["psnr"], peer
            for key, name in (("dps", "dps"), ("tv", "tv"), ("best_peer", peer)):
                gains[key].append(rows["radiata"]["psnr"] - rows[name]["psnr"])
        timed = figures.get("timing", {})
        for key in ("time_ratio_vs_dps", "memory_ratio_vs_dps"):
            if f"{key}_{task}" in timed:
                found[f"{key}_{task}"] = timed[f"{key}_{task}"]
        calibrated = figures.get("sample", {}).get(task)
        if calibrated is not None:
            found[f"variance_error_ratio_{task}"] = calibrated["ratio_after"]
            found[f"coverage90_{task}"] = calibrated["coverage90_after"]
    few = figures.get("fewshot", {})
    for key in ("dice_fewshot8_features", "dice_fewshot8_scratch"):
        if key in few:
            found[key] = float(np.mean(few[key]))
    segmented = figures.get("segment", {})
    if segmented:
        found["dice_tissue_heldout"] = segmented["synthetic"]["random"]["mean"]
        found["ece"] = segmented["calibration"]["ece"]
        if "real" in segmented:
            found["dice_wm_vs_meshnet"] = float(np.mean([row["white"] for row in segmented["real"].values()]))
    for key, values in gains.items():
        if values:
            found[f"mean_gain_over_{key}"] = float(np.mean(values))
    return found


def timing(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """Each method in a fresh process, one thread."""
    figures: dict[str, Any] = {}
    for task in arguments.tasks:
        for name in arguments.methods or ("radiata", "dps", *slices.PEERS, "relaxed_prox"):
            command = [sys.executable, __file__, str(arguments.store), "--alone", name, "--task", task]
            command += ["--models", str(arguments.models)] if arguments.models else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures[f"{name}_{task}"] = json.loads(done.stdout.splitlines()[-1])
        ours, other = figures[f"radiata_{task}"], figures[f"dps_{task}"]
        figures[f"time_ratio_vs_dps_{task}"] = other["seconds"] / ours["seconds"]
        figures[f"memory_ratio_vs_dps_{task}"] = ours["mib"] / other["mib"]
        slower = other["seconds"] / ours["seconds"]
        print(
            f"{task:8} radiata {ours['seconds']:.2f} CPU-s, {ours['mib']:.0f} MiB; DPS {other['seconds']:.2f}, "
            f"{other['mib']:.0f}: {slower:.1f} x the time, {ours['mib'] / other['mib']:.2f} of the memory",
            flush=True,
        )
    return figures


def resident(name: str) -> float:
    """A line of the process's memory, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def alone(arguments: argparse.Namespace) -> None:
    """One method on two slices, one after another: CPU-seconds a slice, and memory above that of a loaded prior."""
    torch.set_num_threads(1)
    prior, restorer = models_of(arguments, "cpu")
    with LabelMaps(arguments.store) as store:
        test = slices.slices_of(store, "test", 2, "cpu", seed=2)
    spread = slices.spread_of(prior, test.images[:1, :, :16, :16])
    methods = slices.Methods(prior, restorer, spread, "cpu")
    operator, noise_sd = slices.operator_of(arguments.task, "cpu")
    y = slices.measured(operator, test.images, noise_sd, 1)
    settings = methods.settings(arguments.alone)[0]
    ctypes.CDLL(None).malloc_trim(0)  # what rendering left is not to be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    seconds = []
    for row in range(2):
        generators = slices.generators_of([row], 3)
        start = time.process_time()
        methods.solve(arguments.alone, settings, operator, y[row : row + 1], noise_sd, generators)
        seconds.append(time.process_time() - start)
    peak = resident("VmHWM")
    print(json.dumps({"seconds": min(seconds), "mib": peak - before, "process_mib": peak}))


def volume(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    restorers = [
        load_model(arguments.models / name if arguments.models else find_model(name)).denoiser.to(device)
        for name in ("restorer-3d", "restorer-2d")
    ]
    with LabelMaps(arguments.store) as store:
        if arguments.quick:
            return medical_volumes.volume_figures(
                *restorers, store, device, 1, shape=(64, 64, 64), iterations=5
            )
        return medical_volumes.volume_figures(
            *restorers, store, device, arguments.heads, names=arguments.methods or ()
        )


def segment(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    network = load_model(
        arguments.models / "segmenter" if arguments.models else find_model("segmenter")
    ).denoiser
    scans = sorted(arguments.scans.glob("*.nii.gz")) if arguments.scans else []
    with LabelMaps(arguments.store) as store:
        return medical_segmentation.segmentation_figures(
            network, store, scans, arguments.judge, arguments.kinds, arguments.quick
        )


def fewshot(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    prior, _ = models_of(arguments, device)
    with LabelMaps(arguments.store) as store:
        return medical_fewshot.fewshot_figures(prior, store, arguments.seconds, 1 if arguments.quick else 2)


def anomaly(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    prior, _ = models_of(arguments, device)
    with LabelMaps(arguments.store) as store:
        return medical_anomaly.anomaly_figures(prior, store, arguments.lesions, 4 if arguments.quick else 24)


def translate(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    prior, _ = models_of(arguments, device)
    joint = load_model(arguments.models / "joint-2d" if arguments.models else find_model("joint-2d")).denoiser
    with LabelMaps(arguments.store) as store:
        validation = slices.slices_of(store, "validation", 2 if arguments.quick else 8, device, seed=1)
        spread = slices.spread_of(prior, validation.images)
        return medical_translation.translation_figures(
            prior, spread, joint, store, 4 if arguments.quick else 12
        )


SECTIONS = {
    "restore": restore, "sample": sample, "volume": volume, "segment": segment, "fewshot": fewshot, "anomaly": anomaly,
    "translate": translate, "timing": timing,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--tasks", nargs="+", choices=slices.TASKS, default=list(slices.TASKS))
    parser.add_argument("--methods", nargs="+", help="of sections restore and volume; all by default")
    parser.add_argument(
        "--merge", nargs="+", type=Path, default=[], help="figures of other runs, to be summed up"
    )
    parser.add_argument("--device", choices=["cpu", "auto"], default="cpu")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4, help="whole heads of section volume")
    parser.add_argument(
        "--seconds", type=float, default=60, help="CPU-seconds of a training of section fewshot"
    )
    parser.add_argument("--scans", type=Path, help="folder of real T1 heads, for section segment")
    parser.add_argument("--judge", type=Path, help="folder of MeshNet's three-class weights, for the same")
    parser.add_argument(
        "--kinds", nargs="+", default=list(medical_segmentation.KINDS), help="synthetic scans of it"
    )
    parser.add_argument("--lesions", type=Path, help="folder of lesion masks, for section anomaly")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone")
    parser.add_argument("--task")
    arguments = parser.parse_args()
    if arguments.store is None:
        print("left out: needs a store of label maps (radiata-medical prepare)")
        return
    if arguments.alone:
        alone(arguments)
        return
    device = "cuda" if arguments.device == "auto" and torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    figures: dict[str, Any] = {}
    for path in (
        *arguments.merge,
        *([arguments.json] if arguments.json and arguments.json.is_file() else []),
    ):
        join(figures, json.loads(path.read_text()))
    for section in arguments.only:
        made = SECTIONS[section](arguments, device) | {"device": name}
        join(figures, {section: made})
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=1))
    figures["summary"] = summary(figures)
    print(json.dumps(figures["summary"], indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
