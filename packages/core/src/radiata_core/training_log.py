"""The curves of a training: `log.jsonl` always, TensorBoard where it is installed and wanted."""

from pathlib import Path
from typing import Any

from radiata_core.logs import Log

__all__ = ["TrainingLog"]


class TrainingLog:
    """Writes on the main process only. On resuming, records after the checkpoint's step are taken back.

    Args:
        folder: The run's folder.
        step: Step the run starts from.
        main: Whether this is the main process.
        tensorboard: Write `folder/tensorboard` too.
    """

    def __init__(self, folder: Path, step: int, main: bool, tensorboard: bool) -> None:
        self._log: Log | None = None
        self._board: Any = None
        if not main:
            return
        self._log = Log(folder / "log.jsonl")
        self._log.keep(lambda record: record.get("step", 0) <= step)
        if tensorboard:
            try:
                from torch.utils.tensorboard.writer import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, **figures: float) -> None:
        """One record."""
        if self._log is not None:
            self._log.write(step=step, **figures)
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            self._board.close()
