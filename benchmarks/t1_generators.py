"""Three ways to 1 mm in voxel space at equal processor time: a cascade of flows, patch transformers, MedForJ's network.

    python benchmarks/t1_generators.py STORE [--minutes 10] [--heads 6] [--only cascade ...] [--json FILE]

STORE holds heads at 1 mm (`radiata-t1 cohort labels/ --spacing 1 ...`). Every arm is trained from its initial weights for
the same processor time (`--minutes`, one thread) on the training people, by AdamW with the same warm-up and decay, and then
draws one head for each of `--heads` heads of the test people, whom it never saw:

    cascade       three stages, 8 to 4 to 2 to 1 mm (`shared/presets/t1-stage-*.toml`), on blocks; four evaluations each
    transformer   16³ patches of the whole 192 × 224 × 192 head, width 384, depth 12, predicts the clean head, given the head
                  at 8 mm beside the noisy one; 16 evaluations. `transformer-small` is width 256, depth 6: more steps
    medforj       MedForJ's network of 41 million parameters, unconditional, on whole heads of 4 mm, the largest at which it
                  takes a useful number of steps; 20 evaluations. Compared at 4 mm only

The first two are told the test heads' own 8 mm, so that only what they add is judged. Figures, by arm:

    spectrum_db   rms over shells of the difference of mean log power, up to the Nyquist frequency of 1 mm
    spectrum_fine the same in the finest octave, 0.25 to 0.5 cycles/mm
    mmd_4mm       squared MMD (energy kernel) of frozen random convolutions at 4 mm, standardised by the training heads, with
                  a 95 % bootstrap interval over heads; `floor`: validation against test heads
    steps, seconds_a_head   of training, and processor seconds of one head
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GRID = (192, 224, 192)
STAGES: dict[str, dict[str, Any]] = {
    "4mm": {"sizes": ((48, 96), (1, 1), (1, 2)), "placed": True, "block": 16, "rows": 8},
    "2mm": {"sizes": ((32, 64, 96), (0, 1, 1), (1, 1, 1)), "placed": True, "block": 24, "rows": 4},
    "1mm": {"sizes": ((16, 40, 80), (0, 0, 1), (1, 1, 1)), "placed": False, "block": 32, "rows": 4},
}
SHARES = {"4mm": 0.3, "2mm": 0.45, "1mm": 0.25}
CORRUPTION = {"4mm": 0.15, "2mm": 0.15, "1mm": 0.1}


def fit(
    denoiser: Any,
    objective: Any,
    item: Callable[[int], dict[str, Any]],
    rows: int,
    seconds: float,
    rate: float,
) -> int:
    """Steps of AdamW done in `seconds` of this process; the rate rises over 3 % of them and falls to 0 along a cosine."""
    import math

    import torch

    from radiata_core.seeds import generator_of

    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    began, step = time.process_time(), 0
    denoiser.train()
    while (part := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, part / 0.03) * 0.5 * (1 + math.cos(math.pi * part))
        batch = torch.utils.data.default_collate([item(step * rows + row) for row in range(rows)])
        image = batch.pop("image")
        loss = objective(denoiser, image, [generator_of(7, step, row) for row in range(rows)], **batch)
        loss.value.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 20 == 0:
            print(f"  step {step}, {part:.0%}, loss {loss.value.item():.3f}", flush=True)
    denoiser.eval()
    return step


def law(mean: float) -> Any:
    """Velocities of the linear path under a log-normal law of noise."""
    from radiata_core.objectives import Regression
    from radiata_core.paths import LinearPath
    from radiata_core.predictions import Prediction
    from radiata_core.times import LogNormalSNR

    return Regression(LinearPath(), LogNormalSNR(mean, 1.5), target=Prediction.VELOCITY)


def cascade_of(store: Any, seconds: float) -> tuple[Any, dict[str, int]]:
    """A cascade trained for `seconds` in all, and the steps of its stages."""
    from radiata_core.refinement import Cascade
    from radiata_t1.data.blocks import FineBlocks, residual_rms
    from radiata_t1.model.cascades import resolution_mm
    from radiata_t1.model.stages import build_stage

    stages, steps = [], {}
    for name, told in STAGES.items():
        stage = build_stage(*told["sizes"], corruption=CORRUPTION[name], placed=told["placed"], seed=0)
        blocks = FineBlocks(store, "train", stage, resolution_mm(name), (told["block"],) * 3)
        stage.scale = residual_rms(blocks)
        fast(stage)
        share = SHARES[name] * seconds
        steps[name] = fit(
            stage, law(0.2), lambda i, b=blocks: b.augmented(i % len(b), i), told["rows"], share, 1.5e-3
        )
        stages.append(stage.eval())
        del blocks
    return Cascade(stages, 8.0, [4, 4, 4], [0.0, 0.0, 0.0]).eval(), steps


def fast(module: Any) -> None:
    """The memory format that is fastest on a CPU."""
    import torch

    module.to(memory_format=torch.channels_last_3d)


def transformer_of(store: Any, seconds: float, width: int, depth: int) -> tuple[Any, int]:
    """A transformer of 16³ patches that predicts the clean head given it at 8 mm."""
    import torch

    from radiata_core.denoisers import NetworkDenoiser, UnitVariance
    from radiata_core.nets.transformer import Transformer
    from radiata_core.paths import LinearPath
    from radiata_core.predictions import Prediction
    from radiata_core.refinement import GivenCoarse, box_mean, interpolated
    from radiata_t1.data.blocks import scaled_head

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Transformer(
            dims=3,
            in_channels=2,
            out_channels=1,
            patch=16,
            heads=width // 64,
            head=64,
            depth=depth,
            absolute=True,
        )
    denoiser = NetworkDenoiser(GivenCoarse(network), LinearPath(), Prediction.X0, UnitVariance(0.75))
    rows = store.indices("train")

    def item(number: int) -> dict[str, Any]:
        head = scaled_head(store, int(rows[number * 37 % len(rows)]))
        return {"image": head[0], "coarse": interpolated(box_mean(head, 8), 8)[0]}

    return denoiser, fit(denoiser, law(1.0), item, 1, seconds, 5e-4)


def medforj_of(store: Any, seconds: float) -> tuple[Any, int]:
    """MedForJ's network on whole heads of 4 mm, velocities of the linear path."""
    import torch

    from radiata_core.refinement import box_mean
    from radiata_t1.data.blocks import scaled_head
    from radiata_t1.model.build import build_denoiser
    from radiata_t1.model.predictions import PredictionType

    denoiser = build_denoiser(None, PredictionType("rflow"), (48, 64, 48), 0, 0)
    fast(denoiser)
    rows = store.indices("train")
    heads = torch.stack([box_mean(scaled_head(store, int(row)), 4)[0] for row in rows])
    heads = torch.nn.functional.pad(heads, (0, 0, 4, 4), value=-1.0)  # its axes are multiples of 16
    return denoiser, fit(
        denoiser, law(0.2), lambda i: {"image": heads[i * 37 % len(heads)]}, 2, seconds, 2e-4
    )


def solved(denoiser: Any, shape: Sequence[int], seed: int, steps: int, **conditions: Any) -> Any:
    """One head by DPM-Solver++(2M), even in log-SNR."""
    from radiata_core import tables
    from radiata_core.seeds import generators_of, noise_of
    from radiata_core.solvers import integrate
    from radiata_core.times import LogSNRGrid

    noise = noise_of(generators_of([seed], 0), (1, *shape))
    table = tables.dpmpp_2m(LogSNRGrid()(steps, denoiser.path), denoiser.path)
    return integrate(denoiser, noise, table, **conditions)


def drawn(arm: str, store: Any, seconds: float, rows: Sequence[int]) -> tuple[list[Any], dict[str, Any]]:
    """The heads of an arm, float32 arrays, and what is said of its training."""
    import torch

    from radiata_core.refinement import box_mean, interpolated
    from radiata_t1.data.blocks import scaled_head

    told: dict[str, Any] = {}
    if arm == "cascade":
        model, told["steps"] = cascade_of(store, seconds)
    elif arm == "medforj":
        model, told["steps"] = medforj_of(store, seconds)
    else:
        sizes = (256, 6) if arm.endswith("small") else (384, 12)
        model, told["steps"] = transformer_of(store, seconds, *sizes)
    told["parameters"] = sum(p.numel() for p in model.parameters())
    heads = []
    began = time.process_time()
    with torch.inference_mode():
        for number, row in enumerate(rows):
            eight = box_mean(scaled_head(store, row), 8)
            if arm == "cascade":
                head = model(eight, [number])
            elif arm == "medforj":
                head = solved(model, (48, 64, 48), number, 20)[:, :, :, 4:-4]
            else:
                head = solved(model, GRID, number, 16, coarse=interpolated(eight, 8))
            heads.append(head[0, 0].clamp(-1.0, 1.5).numpy())
    told["seconds_a_head"] = round((time.process_time() - began) / len(rows), 1)
    return heads, told


def main() -> None:
    """Train, draw, compare, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument(
        "--only", nargs="*", default=["cascade", "transformer-small", "transformer", "medforj"]
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the drawn heads, .npy")
    options = parser.parse_args()
    import numpy as np
    import torch

    from radiata_core.refinement import box_mean
    from radiata_imaging.features import RandomConvFeatures, Standardised
    from radiata_imaging.spectra import RadialBins, log_power
    from radiata_imaging.store import Store
    from radiata_imaging.two_sample import EnergyKernel, compare
    from radiata_t1.data.blocks import scaled_head

    torch.set_num_threads(1)
    store = Store(options.store, GRID)

    def some(split: str, number: int) -> list[int]:
        indices = store.indices(split)
        return [
            int(indices[i]) for i in np.linspace(0, len(indices) - 1, min(number, len(indices))).astype(int)
        ]

    rows = some("test", options.heads)
    network, shells = RandomConvFeatures(), RadialBins(GRID, (1.0, 1.0, 1.0))

    def four(head: Any) -> Any:
        return box_mean(torch.from_numpy(head)[None, None], 4)[0, 0].numpy()

    def real(split: str, number: int) -> list[Any]:
        return [scaled_head(store, row)[0, 0].clamp(-1, 1.5).numpy() for row in some(split, number)]

    def power(heads: list[Any]) -> Any:
        return np.stack([log_power(shells.power(head)[shells.shown]) for head in heads])

    scale = Standardised.fit(np.stack([network(four(head)) for head in real("train", 36)]))
    test = real("test", options.heads)
    at_four = scale(np.stack([network(four(head)) for head in test]))
    frequency, truth = shells.frequency[shells.shown], power(test)

    def judged(heads: list[Any], fine: bool) -> dict[str, Any]:
        features = scale(np.stack([network(four(h) if fine else h) for h in heads]))
        found = compare(features, at_four, EnergyKernel(), np.random.default_rng(0), permutations=0)
        figures: dict[str, Any] = {
            "mmd_4mm": round(found.value, 3),
            "interval": [round(v, 3) for v in found.interval],
        }
        if fine:
            off = power(heads).mean(0) - truth.mean(0)
            figures["spectrum_db"] = round(float(np.sqrt((off**2).mean())), 2)
            figures["spectrum_fine"] = round(float(np.sqrt((off[frequency >= 0.25] ** 2).mean())), 2)
        return figures

    found: dict[str, Any] = {
        "minutes": options.minutes,
        "floor": judged(real("validation", options.heads), True),
    }
    print("floor", found["floor"], flush=True)
    for arm in options.only:
        heads, told = drawn(arm, store, 60 * options.minutes, rows)
        found[arm] = told | judged(heads, arm != "medforj")
        print(arm, found[arm], flush=True)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            np.save(options.keep / f"{arm}.npy", np.stack(heads[:2]).astype(np.float32))
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, figures in found.items():
        print(f"{name:18s} {figures}")


if __name__ == "__main__":
    main()
