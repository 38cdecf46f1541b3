"""Pairs for rectification: a teacher solves its ODE from the noise of many seeds, into files that survive anything.

    draw_pairs(teacher, range(50_000), "pairs", event=(1, 40, 48, 40), conditions=rows_of_seeds, batch=64)
    data = open_pairs("pairs")            # {"image", "noise", conditions}: items for `train.train`

A pair is a function of its seed: the same whatever the batch, the shard or the number of starts (up to the rounding of the
teacher's own kernels, which may depend on the batch). Every batch becomes a file by a rename before the next one starts, so
a kill loses the batch in flight and nothing else; a second start draws the seeds that are missing. Small files are joined
as the run goes. Shards (i, n) take every n-th seed and may write into one folder at the same time.

Teacher, path, shape, solver and guidance stand in every file. A folder of other pairs is refused, at drawing and at opening.

References:
    Liu, Gong & Liu, "Flow straight and fast", 2023, https://arxiv.org/abs/2209.03003, algorithm 1.
    Wang et al., "Rectified diffusion", 2024, https://arxiv.org/abs/2410.07303 (the guidance of the pairs is the student's).
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from radiata_core.denoisers import Guided
from radiata_core.errors import InputError
from radiata_core.kernels import GaussianKernel
from radiata_core.logs import Progress
from radiata_core.paths import Path as NoisePath
from radiata_core.runs import Interrupted
from radiata_core.signals import StopSignal
from radiata_core.solvers import integrate
from radiata_core.specs import describe
from radiata_core.tables import MultistepTable, unipc_2
from radiata_core.times import Grid, LogSNRGrid
from radiata_imaging.pair_store import (
    PairDataset,
    PairSpec,
    PairStore,
    join_pairs,
    noise_law,
    pair_files,
    seed_noise,
    write_pairs,
)
from radiata_imaging.volume import times

__all__ = ["PairDataset", "PairSpec", "PairStore", "draw_pairs", "fingerprint", "open_pairs"]

Conditions = Callable[[Sequence[int]], Mapping[str, Tensor]]
_JOIN = 64  # small files that become one


def fingerprint(denoiser: Any) -> str:
    """SHA-256 over everything a denoiser consists of: parameters, buffers, fields; the same on every device."""
    digest = hashlib.sha256()

    def add(thing: Any) -> None:
        if isinstance(thing, torch.nn.Module):
            digest.update(type(thing).__name__.encode())
            for name, value in sorted(thing.state_dict().items()):
                digest.update(name.encode())
                add(value)
        elif isinstance(thing, Tensor):
            digest.update(f"{thing.dtype}{tuple(thing.shape)}".encode())
            digest.update(thing.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            digest.update(type(thing).__name__.encode())
            for field in dataclasses.fields(thing):
                add(getattr(thing, field.name))
        elif isinstance(thing, Sequence) and not isinstance(thing, str):
            for item in thing:
                add(item)
        elif isinstance(thing, bool | int | float | str | None):
            digest.update(repr(thing).encode())
        else:
            digest.update(getattr(thing, "__qualname__", type(thing).__qualname__).encode())

    add(denoiser)
    return digest.hexdigest()


def draw_pairs(
    denoiser: Any,
    seeds: Sequence[int],
    out: Path | str,
    *,
    event: Sequence[int],
    conditions: Conditions | None = None,
    solver: Callable[..., MultistepTable] = unipc_2,
    grid: Grid | None = None,
    steps: int = 20,
    guidance: float = 1.0,
    batch: int = 8,
    shard: tuple[int, int] = (0, 1),
    dtype: Literal["float16", "float32"] = "float16",
    store_noise: bool = False,
    compression: str | None = "lzf",
    start: Callable[..., Tensor] | None = None,
    teacher: str | None = None,
    device: str | torch.device = "cpu",
    resume: bool = True,
    progress: bool = True,
) -> int:
    """Number of pairs drawn now; those that were in the folder already are not drawn again.

    Args:
        denoiser: The teacher, E[x_0 | x_t] with `.path`, on `device`.
        seeds: One a pair, >= 0, each once.
        out: Folder of the files; made if absent.
        event: Shape of one sample.
        conditions: Rows of each condition as a function of seeds, `(seeds) -> {name: (len(seeds), …)}`.
        solver: A deterministic table of `tables`, `(times, path) -> table`.
        grid: Its grid; None takes `LogSNRGrid()`.
        steps: Its steps.
        guidance: Weight of classifier-free guidance; 1 for none.
        batch: Pairs at a time, the most that a kill can lose.
        shard: (i, n): this call draws the seeds i, i + n, i + 2 n, … of the sequence.
        dtype: How samples are stored.
        store_noise: Store the noise too, 4 bytes an element, instead of drawing it again from the seed.
        compression: Of the samples: lzf, gzip or None.
        start: `(denoiser, noise, **conditions) -> x` at the grid's first time; None takes sigma noise.
        teacher: Its fingerprint, e.g. a checksum of its file; None takes `fingerprint(denoiser)`.
        device: Where the teacher is.
        resume: False refuses a folder with pairs.
        progress: Count on standard error.

    Raises:
        InputError: bad arguments, a folder with other pairs, a damaged file in it, a value that is not finite.
        Interrupted: after Ctrl-C or SIGTERM, with the batch finished and saved.
    """
    folder, (number, shards) = Path(out), shard
    seeds = [int(seed) for seed in seeds]
    _check(folder, seeds, batch, (number, shards), guidance, conditions)
    chosen_grid = LogSNRGrid() if grid is None else grid
    table = solver(chosen_grid(steps, denoiser.path), denoiser.path)
    if table.stochastic:
        raise InputError(
            f"expected a deterministic solver, so that a pair is a function of its noise; got {solver.__name__}. "
            "Use unipc_2."
        )
    shapes = conditions(seeds[:1]) if conditions is not None else {}
    spec = PairSpec(
        path=describe(denoiser.path),
        event=tuple(int(n) for n in event),
        teacher=fingerprint(denoiser) if teacher is None else teacher,
        prediction=str(getattr(denoiser, "prediction", "sample")),
        solver=solver.__name__,
        grid=describe(chosen_grid),
        steps=steps,
        guidance=float(guidance),
        noise=noise_law(getattr(denoiser, "kernel", GaussianKernel())),
        stored_noise=store_noise,
        dtype=dtype,
        conditions={name: list(value.shape[1:]) for name, value in sorted(shapes.items())},
    )
    drawing = _Drawing(denoiser, spec, table, conditions, start, device)
    folder.mkdir(parents=True, exist_ok=True)
    mine = seeds[number::shards]
    there, parts = _present(folder, spec, set(mine))
    if there and not resume:
        raise InputError(
            f"expected a folder without pairs; got {len(there)} of these in {folder}. Choose another, or resume."
        )
    missing = [seed for seed in mine if seed not in there]
    stream = None if progress else io.StringIO()
    with (
        StopSignal() as stop,
        Progress(len(mine), "pairs", unit="pair", start=len(there), stream=stream) as bar,
    ):
        for begin in range(0, len(missing), batch):
            chosen = missing[begin : begin + batch]
            parts.append(folder / f"part-{_name(chosen)}.pairs.h5")
            write_pairs(parts[-1], spec, chosen, *drawing(chosen), compression)
            bar.update(len(chosen))
            if stop.number is not None and begin + batch < len(missing):
                raise Interrupted(f"{bar.done} of {len(mine)} pairs are in {folder}; run it again to go on")
            if len(parts) >= _JOIN:
                parts = _joined(folder, parts, compression)
        _joined(folder, parts, compression)
    return len(missing)


def _check(
    folder: Path, seeds: list[int], batch: int, shard: tuple[int, int], guidance: float, conditions: object
) -> None:
    if not 0 <= shard[0] < shard[1]:
        raise InputError(
            f"expected a shard (i, n) with 0 <= i < n; got {shard}. The first of four is (0, 4)."
        )
    if batch < 1 or not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(
            f"expected seeds >= 0, each once, and a batch of 1 or more; got {len(seeds)} seeds, {len(set(seeds))} of them "
            f"different, and a batch of {batch}. Use range(count)."
        )
    if guidance != 1.0 and conditions is None:
        raise InputError(f"expected conditions for guidance {guidance}; got none. Give them, or guidance 1.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected a folder for the pairs; got the file {folder}. Choose another.")


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """Samples, conditions and noise of some seeds."""

    denoiser: Any
    spec: PairSpec
    table: MultistepTable
    conditions: Conditions | None
    start: Callable[..., Tensor] | None
    device: str | torch.device

    def __call__(self, seeds: Sequence[int]) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray | None]:
        noise = torch.stack([seed_noise(seed, self.spec) for seed in seeds])
        rows = {} if self.conditions is None else self.conditions(seeds)
        rows = {name: value.to(torch.float32) for name, value in rows.items()}
        given: dict[str, Any] = {name: value.to(self.device) for name, value in rows.items()}
        moved = noise.to(self.device)
        if self.start is not None:
            x = self.start(self.denoiser, moved, **given)
        else:
            x = float(self.denoiser.path.coefficients(self.table.times[0]).sigma) * moved
        guided = self.spec.guidance != 1.0
        model = Guided(self.denoiser, self.spec.guidance) if guided else self.denoiser
        x0 = integrate(model, x, self.table, **given).float().cpu().numpy()
        kept = {name: value.cpu().numpy() for name, value in rows.items()}
        return x0, kept, noise.numpy() if self.spec.stored_noise else None


def _name(seeds: Sequence[int]) -> str:
    digest = hashlib.sha256(",".join(map(str, seeds)).encode()).hexdigest()[:12]
    return f"{min(seeds):09d}-{digest}"


def _opened(paths: Path | str | Sequence[Path | str]) -> list[PairStore]:
    """All files; one that another process joins meanwhile is looked for again."""
    for attempt in range(10):
        stores = []
        for file in pair_files(paths):
            try:
                stores.append(PairStore(file))
            except InputError:
                if file.exists() or attempt == 9 or not file.name.startswith("part-"):
                    raise
                break
        else:
            return stores
    return stores


def _present(folder: Path, spec: PairSpec, mine: set[int]) -> tuple[set[int], list[Path]]:
    """The seeds that are there, and the small files that hold seeds of this shard only."""
    there: set[int] = set()
    parts = []
    for store in _opened(folder):
        store.spec.check(spec, store.path)
        held = {int(seed) for seed in store.seeds}
        there |= held & mine
        if store.path.name.startswith("part-") and held <= mine:
            parts.append(store.path)
    return there, parts


def _joined(folder: Path, parts: list[Path], compression: str | None) -> list[Path]:
    """Join small files into one, which stands under its name before they go."""
    if not parts:
        return []
    stores = [PairStore(part) for part in parts]
    seeds = [int(seed) for store in stores for seed in store.seeds]
    join_pairs(folder / f"pairs-{_name(seeds)}.pairs.h5", stores, compression)
    for store in stores:
        store.close()
        store.path.unlink(missing_ok=True)
    return []


def open_pairs(
    paths: Path | str | Sequence[Path | str],
    *,
    seeds: Sequence[int] | None = None,
    path: NoisePath | None = None,
    event: Sequence[int] | None = None,
    teacher: str | None = None,
    in_memory: bool = False,
) -> PairDataset:
    """The pairs of files and folders as one data set: items {"image", "noise", conditions}, ordered by seed.

    Args:
        paths: Folders of `draw_pairs`, or files of them.
        seeds: The seeds wanted, in this order; None for all.
        path: The path they must be on; None for any.
        event: The shape a sample must have; None for any.
        teacher: The fingerprint its teacher must have; None for any.
        in_memory: Keep the samples in memory.

    Raises:
        InputError: nothing there, a damaged file, pairs of another path, shape or teacher, mixed pairs, missing seeds.
    """
    stores = _opened(paths)
    if not stores:
        raise InputError(f"expected pairs in {paths}; got no file of any. Draw them with draw_pairs.")
    spec = stores[0].spec
    if path is not None and describe(path) != spec.path:
        raise InputError(
            f"expected pairs on {describe(path)}; got pairs on {spec.path} in {stores[0].path}. Use the teacher's path."
        )
    if event is not None and tuple(event) != spec.event:
        raise InputError(
            f"expected pairs of shape {times(tuple(event))}; got {times(spec.event)} in {stores[0].path}. "
            "Draw them from this model."
        )
    if teacher is not None and teacher != spec.teacher:
        raise InputError(
            f"expected pairs of the teacher {teacher[:12]}…; got {spec.teacher[:12]}… in "
            f"{stores[0].path}. Draw them from it."
        )
    return PairDataset(stores, seeds, in_memory=in_memory)
