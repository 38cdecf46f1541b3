"""MedForJ's network and its weights: MONAI's own program against ours, in time and in memory.

    python benchmarks/t1_speed.py --all [--json FILE]                  half an hour
    python benchmarks/t1_speed.py [--quick] [--only forward memory train schedule full generator throughput] [--json FILE]

Both networks are the released one of 41 million parameters with the same random weights in every tensor: float32, one
thread, one sample of 96 × 112 × 96 (a head at 2 mm), no gradients unless said otherwise. MONAI is called as it comes, and
once more with its own option `use_flash_attention`.

    forward   processor seconds of a call, arms alternating in one process; a figure is the median of the ratios of repeats,
              with the smallest and the largest beside it, and the largest difference of outputs over the largest output
    memory    peak resident memory of a fresh process during one call, less what is resident before it (network, input,
              libraries, which a call on a small grid has loaded); `tiled` under the limit `--limit` (MiB); medians of three
    train     the same for one forward and backward pass at 64³, batch 2; gradients counted, no optimiser; ours with
              `checkpointing`; the median of the ratios of three repeats, with the smallest and the largest. As
              `radiata-t1 train --checkpointing` does, freed blocks go back to the system (`allocation`), in both programs;
              `_kept`: in neither. `train_time_ratio` is of processor seconds
    schedule  processor seconds of our calls at 64 noise levels (32³), each worked out at its call, over those with all
              prepared beforehand, preparing counted; and the same of the embeddings alone, without the network
    full      one call on 192 × 224 × 192 voxels in a fresh process with all threads of the machine: wall seconds and peak
              memory of MONAI's network as it comes and of ours within 3 GiB. Only where it is named: minutes, and 9 GiB
    generator one evaluation of MONAI's network as in `full`, times the 64 of MedForJ's program, over `radiata-t1 sample` of
              one head of the same 192 × 224 × 192 voxels, from the command to the file, both with all threads, alternating;
              and the peak memory of both processes. Only where it is named
    throughput  efficiency of two processes, `t1_throughput.py`. Only where it is named

Keys: `forward_time_ratio`, `forward_time_ratio_flash`, `forward_max_rel_error`, `forward_memory_ratio`,
`tiled_memory_ratio`, `tiled_time_ratio`, `tiled_estimate_memory_error`, `tiled_estimate_time_error`,
`train_memory_ratio`, `schedule_time_ratio`, `schedule_embedding_ratio`, `two_process_efficiency`,
`two_worker_volume_efficiency`, `medforj_1mm_seconds`, `medforj_1mm_mib` (`medforj_1mm_process_mib`: with libraries and
weights), `ours_1mm_seconds`, `ours_1mm_mib`, `time_ratio_1mm`, `memory_ratio_1mm`; ratios are MONAI's over ours (in
`schedule`, ours over ours), estimates are relative errors of what was foretold.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BARS = {
    "forward_time_ratio": (">=", 1.3),
    "forward_memory_ratio": (">=", 1.8),
    "tiled_memory_ratio": (">=", 4.0),
    "train_memory_ratio": (">=", 2.0),
    "forward_max_rel_error": ("<=", 1e-5),
    "time_ratio_1mm": (">=", 100.0),
    "memory_ratio_1mm": (">=", 2.0),
    "two_process_efficiency": (">=", 0.9),
    "two_worker_volume_efficiency": (">=", 0.9),
}
GRID, TRAIN_GRID, FULL_GRID = (96, 112, 96), (64, 64, 64), (192, 224, 192)
FULL_LIMIT = 3072.0
"""MiB of our call at 1 mm."""
SMALL = (16, 16, 16)


def networks(*names: str) -> dict[str, Any]:
    """ "monai", "flash", "ours": the networks asked for, with the same weights."""
    import torch
    from monai.networks.nets import DiffusionModelUNet

    from radiata_core.nets.medforj import MEDFORJ, MedForJUNet

    made: dict[str, Any] = {}
    for name in names:
        with torch.random.fork_rng(devices=[]):
            made[name] = (
                MedForJUNet()
                if name == "ours"
                else DiffusionModelUNet(**MEDFORJ, use_flash_attention=name == "flash")
            )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for tensor in sorted_tensors(made[name]):
                scale = 0.3 if tensor.ndim < 2 else tensor[0].numel() ** -0.5
                tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
                tensor.add_(1.0 if tensor.ndim < 2 else 0.0)
        made[name].eval()
    return made


def sorted_tensors(network: Any) -> list[Any]:
    """The parameters in the order of their names, which both networks share."""
    return [parameter for _, parameter in sorted(network.named_parameters())]


# In a process of its own: peak memory ------------------------------------------------------------------------------------


def resident_mib(key: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError("memory is read from /proc/self/status, which only Linux has")


def arm(
    name: str, train: bool, limit: float | None, full: bool = False, returned: bool = False
) -> dict[str, float]:
    """Seconds (processor and wall) and MiB of one call."""
    import torch

    torch.set_num_threads((os.cpu_count() or 1) if full else 1)
    network = networks(name)[name]
    grid, rows = (TRAIN_GRID, 2) if train else (FULL_GRID if full else GRID, 1)
    x, step = torch.zeros(rows, 1, *grid), torch.full((rows,), 400.0)
    x.normal_(generator=torch.Generator().manual_seed(1))
    found: dict[str, float] = {}

    def call(x: torch.Tensor) -> None:
        if not train:
            with torch.no_grad():
                network(x, step)
            return
        network(x, step).square().mean().backward()
        network.zero_grad(set_to_none=True)

    if name == "ours":
        network.checkpointing = train
    if returned:  # as `radiata-t1 train --checkpointing` does
        from radiata_core.allocation import return_large_blocks

        return_large_blocks()
    call(torch.zeros(rows, 1, *SMALL))  # loads libraries, chooses kernels
    if name == "ours" and limit is not None:
        from radiata_core.nets.medforj_plan import estimate

        network.max_memory = int(limit * 2**20)
        foretold = estimate(network, grid, 1, network.max_memory)
        found |= {"foretold_seconds": foretold.seconds, "foretold_mebibytes": foretold.mebibytes}
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    wall, cpu = time.perf_counter(), time.process_time()
    call(x)
    found |= {"wall": time.perf_counter() - wall, "seconds": time.process_time() - cpu}
    return found | {"mebibytes": resident_mib("VmHWM") - before, "process_mib": resident_mib("VmHWM")}


def in_own_process(
    name: str, train: bool = False, limit: float | None = None, full: bool = False, returned: bool = False
) -> dict[str, float]:
    """`arm` in a fresh interpreter."""
    words = [sys.executable, __file__, "--arm", name, *(["--train"] if train else [])]
    words += [
        *(["--full"] if full else []),
        *(["--returned"] if returned else []),
        *([] if limit is None else ["--limit", str(limit)]),
    ]
    threads = str(os.cpu_count() if full else 1)
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": threads}
    )
    read: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return read


# Sections ------------------------------------------------------------------------------------------------------------------


def forward(quick: bool, limit: float) -> dict[str, float]:
    """Processor time of a call, and the difference of the outputs."""
    import torch

    torch.set_num_threads(1)
    nets = networks("monai", "flash", "ours")
    grid = (48, 64, 48) if quick else GRID
    x, step = torch.zeros(1, 1, *grid), torch.tensor([400.0])
    x.normal_(generator=torch.Generator().manual_seed(1))
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    outputs = {}
    with torch.no_grad():
        for network in nets.values():
            network(torch.zeros(1, 1, *SMALL), step)
        for _ in range(2 if quick else 5):
            for name, network in nets.items():
                start = time.process_time()
                outputs[name] = network(x, step)
                seconds[name].append(time.process_time() - start)
    found: dict[str, float] = {}
    for name, key in (("monai", "forward_time_ratio"), ("flash", "forward_time_ratio_flash")):
        found |= spread({key: [a / b for a, b in zip(seconds[name], seconds["ours"], strict=True)]})
    found |= {f"forward_seconds_{name}": statistics.median(values) for name, values in seconds.items()}
    apart = (outputs["ours"] - outputs["monai"]).abs().max() / outputs["monai"].abs().max()
    return found | {"forward_max_rel_error": float(apart)}


def memory(quick: bool, limit: float) -> dict[str, float]:
    """Peak memory of a call, whole and under a limit, and what was foretold."""
    repeats = []
    for _ in range(1 if quick else 3):
        repeats.append({name: in_own_process(name) for name in ("monai", "flash", "ours")})
        repeats[-1]["tiled"] = in_own_process("ours", limit=limit)
    found = {
        f"forward_mebibytes_{name}": statistics.median(arms[name]["mebibytes"] for arms in repeats)
        for name in repeats[0]
    }
    ratios = {
        "forward_memory_ratio": [arms["monai"]["mebibytes"] / arms["ours"]["mebibytes"] for arms in repeats],
        "tiled_memory_ratio": [arms["monai"]["mebibytes"] / arms["tiled"]["mebibytes"] for arms in repeats],
        "tiled_time_ratio": [arms["monai"]["seconds"] / arms["tiled"]["seconds"] for arms in repeats],
    }
    tiled = [arms["tiled"] for arms in repeats]
    errors = {
        "tiled_estimate_memory_error": [each["foretold_mebibytes"] / each["mebibytes"] - 1 for each in tiled],
        "tiled_estimate_time_error": [each["foretold_seconds"] / each["wall"] - 1 for each in tiled],
    }
    return found | spread(ratios | errors)


def spread(values: dict[str, list[float]]) -> dict[str, float]:
    """Median, smallest and largest of each."""
    found: dict[str, float] = {}
    for key, each in values.items():
        found |= {key: statistics.median(each), f"{key}_low": min(each), f"{key}_high": max(each)}
    return found


def train(quick: bool, limit: float) -> dict[str, float]:
    """Peak memory of a training step."""
    names = ("monai", "flash", "ours", "monai_returned", "ours_returned")
    repeats = [
        {name: in_own_process(name.split("_")[0], train=True, returned="_" in name) for name in names}
        for _ in range(1 if quick else 3)
    ]
    found: dict[str, float] = {}
    for name in names:
        for key in ("mebibytes", "seconds"):
            found[f"train_{key}_{name}"] = statistics.median(arms[name][key] for arms in repeats)
    ratios = {}
    for end in ("_returned", ""):
        for what, key in (("memory", "mebibytes"), ("time", "seconds")):
            ratios[f"train_{what}_ratio{'' if end else '_kept'}"] = [
                arms[f"monai{end}"][key] / arms[f"ours{end}"][key] for arms in repeats
            ]
    return found | spread(ratios)


def schedule(quick: bool, limit: float) -> dict[str, float]:
    """What preparing the noise levels of a schedule saves: of calls, and of the embeddings alone."""
    import torch

    torch.set_num_threads(1)
    ours = networks("ours")["ours"]
    x, levels = torch.zeros(1, 1, *[16 if quick else 32] * 3), torch.linspace(999.0, 0.0, 64)
    blocks = [module for module in ours.modules() if hasattr(module, "time_emb_proj")]

    def called(level: torch.Tensor) -> None:
        ours(x, level)

    def embedded(level: torch.Tensor) -> None:
        signal = ours._signal(x, level.expand(1), None)
        if ours.training:
            for block in blocks:
                block.time_emb_proj(signal)

    found: dict[str, float] = {}
    with torch.no_grad():
        for key, work in (("schedule_time_ratio", called), ("schedule_embedding_ratio", embedded)):
            work(levels[0])
            seconds = [0.0, 0.0]
            ours.eval()  # forgets
            start = time.process_time()
            ours.prepare_times(levels)
            seconds[1] += time.process_time() - start
            for level in levels:
                for arm, prepared in enumerate((False, True)):
                    ours.training = not prepared  # when training nothing is remembered; nothing else differs
                    start = time.process_time()
                    work(level)
                    seconds[arm] += time.process_time() - start
            found |= {key: seconds[0] / seconds[1], f"{key}_saved_ms": 1e3 * (seconds[0] - seconds[1]) / 64}
    return found


def full(quick: bool, limit: float) -> dict[str, float]:
    """One call on a whole head at 1 mm: MONAI's, and ours within a limit."""
    theirs = in_own_process("monai", full=True)
    ours = in_own_process("ours", limit=FULL_LIMIT, full=True)
    return {
        "medforj_1mm_seconds": theirs["wall"],
        "medforj_1mm_processor_seconds": theirs["seconds"],
        "medforj_1mm_mib": theirs["mebibytes"],
        "medforj_1mm_process_mib": theirs["process_mib"],
        "ours_1mm_seconds": ours["wall"],
        "ours_1mm_processor_seconds": ours["seconds"],
        "ours_1mm_mib": ours["mebibytes"],
        "ours_1mm_process_mib": ours["process_mib"],
        "ours_1mm_estimate_memory_error": ours["foretold_mebibytes"] / ours["mebibytes"] - 1,
        "ours_1mm_estimate_time_error": ours["foretold_seconds"] / ours["wall"] - 1,
    }


def generator(quick: bool, limit: float) -> dict[str, float]:
    """`radiata-t1 sample` of one head at 1 mm, from the command to the file, against 64 evaluations of MedForJ's network."""
    # Its own peak: what wait4 says of a child counts the memory of the process that forked it.
    said = "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    program = f"import atexit, re; atexit.register(lambda: {said}); from radiata_t1.cli import main; main()"
    words = [sys.executable, "-c", program, "sample", "--seeds", "0", "--batch-size", "1", "--out"]
    walls, peaks, evaluations = [], [], []
    for _ in range(1 if quick else 3):
        evaluations.append(in_own_process("monai", full=True))
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = subprocess.run([*words, folder], stdout=subprocess.PIPE, text=True)
            walls.append(time.perf_counter() - start)
            if done.returncode or not any(Path(folder).glob("*.nii.gz")):
                raise RuntimeError("radiata-t1 sample failed; run it by hand to see why")
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    ratios = [64 * each["wall"] / wall for each, wall in zip(evaluations, walls, strict=True)]
    return spread({"time_ratio_1mm": ratios}) | {
        "memory_ratio_1mm": evaluations[0]["process_mib"] / max(peaks),
        "sample_1mm_seconds": statistics.median(walls),
        "sample_1mm_mib": max(peaks),
        "evaluation_1mm_seconds": statistics.median([each["wall"] for each in evaluations]),
        "evaluation_1mm_mib": evaluations[0]["process_mib"],
    }


def throughput(quick: bool, limit: float) -> dict[str, float]:
    """Efficiency of two processes: the figures of `t1_throughput.py`, with its own defaults."""
    import t1_throughput

    given = t1_throughput.parsed(["--repeats", "1"] if quick else [])
    return {key: value for part in t1_throughput.measured(given) for key, value in part.items()}


SECTIONS: dict[str, Callable[[bool, float], dict[str, float]]] = {
    "forward": forward,
    "memory": memory,
    "train": train,
    "schedule": schedule,
    "full": full,
    "generator": generator,
    "throughput": throughput,
}
ASKED_FOR = ("full", "generator", "throughput")
"""Sections that take minutes: only where they are named, or with --all."""


def table(found: dict[str, float]) -> str:
    """Figures and bars, one a line."""
    lines = []
    for key, value in found.items():
        sign, bar = BARS.get(key, ("", 0.0))
        met = "" if not sign else "met" if (value >= bar if sign == ">=" else value <= bar) else "NOT MET"
        lines.append(f"{key:34} {value:12.4g}  {f'{sign} {bar:g}' if sign else '':10} {met}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=[n for n in SECTIONS if n not in ASKED_FOR]
    )
    parser.add_argument("--all", action="store_true", help="every section; half an hour")
    parser.add_argument("--quick", action="store_true", help="a smaller grid and fewer repeats for the times")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit", type=float, help="MiB of the tiled call; 200 by default")
    parser.add_argument("--arm", choices=("monai", "flash", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--returned", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(arm(given.arm, given.train, given.limit, given.full, given.returned)))
        return
    found: dict[str, float] = {}
    for name in SECTIONS if given.all else given.only:
        new = SECTIONS[name](given.quick, given.limit or 200.0)
        print(table(new), flush=True)
        found |= new
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
