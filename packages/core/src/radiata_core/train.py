"""Training: one loop from one CPU to many GPUs, resumable to the bit.

Everything random is a pure function of (seed, step, position in the batch): which item is read, its time and noise, which
conditions are hidden from it, the masks of dropout layers. So the state of a run is its weights, the optimiser's moments,
the averages and a step number; a run that is killed and resumed ends in the same bits as one that was not (on one machine;
GPUs add in varying order unless told otherwise). `batch_size` counts the rows of one optimiser step over all processes and
pieces: cutting it differently changes rounding only.

Files: `checkpoints/step-00001000/` (whole or absent, the last few kept), `log.jsonl`, `tensorboard/`, and at the end
`model.safetensors` + `.json` (the first EMA length) and `model-ema-….safetensors` (the others).

References:
    Ho and Salimans, 2022, Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598 (condition dropout).
    Loshchilov and Hutter, 2019, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from radiata_core.orders import BalancedOrder, Order, ShuffledOrder
from radiata_core.signals import StopSignal
from radiata_core.train_options import TrainOptions, hide, learning_rate
from radiata_core.trainer import Objective, Trained, Trainer

__all__ = ["Objective", "TrainOptions", "Trained", "hide", "learning_rate", "train"]


def train(
    denoiser: torch.nn.Module,
    objective: Objective,
    dataset: Any,
    folder: str | Path,
    options: TrainOptions,
    *,
    validation: Any = None,
    metadata: Mapping[str, Any] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Trained:
    """Train `denoiser` in place and write its models into `folder`.

    Args:
        denoiser: Module registered with `specs.buildable`; the objective calls it.
        objective: E.g. `objectives.Regression`; has `path` if losses are to be reported by log-SNR.
        dataset: Map-style; items are dictionaries of tensors, "image" and conditions.
        folder: The run's folder.
        options: See `TrainOptions`.
        validation: Data set of held-out items, or None.
        metadata: Stored with the models.
        groups: Group (person) of each item: epochs then draw groups uniformly.

    Raises:
        InputError: options that do not fit, a folder with checkpoints without `resume`, a loss that is not finite.
        Interrupted: after Ctrl-C or SIGTERM, with the step finished and saved.
    """
    devices = [] if options.device == "cpu" else list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices), StopSignal() as stop:
        trainer = Trainer(denoiser, objective, Path(folder), options, dict(metadata or {}))
        try:
            order: Order = (
                ShuffledOrder(len(dataset), options.seed)
                if groups is None
                else BalancedOrder(groups, options.seed)
            )
            return trainer.fit(dataset, order, validation, stop)
        finally:
            trainer.log.close()
