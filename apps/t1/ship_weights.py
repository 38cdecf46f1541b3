"""Put a trained run's model among the weights that ship: half precision, package data.

    python apps/t1/ship_weights.py RUN NAME [TEACHER]

Run from a checkout; `radiata-t1 sample --model NAME` then finds it. The model card is written by hand beside it.
TEACHER is the shipped name of a student's teacher, if it was distilled from a run folder.
"""

import sys
from pathlib import Path

from radiata_core.checkpoint import load_model, save_model
from radiata_core.runs import read_json
from radiata_t1.model.weights import find_model


def main() -> None:
    run, name = Path(sys.argv[1]), sys.argv[2]
    loaded = load_model(find_model(str(run)))
    target = Path(__file__).parent / "src" / "radiata_t1" / "weights" / f"{name}.safetensors"
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    options = {
        key: value
        for key, value in record.get("options", {}).items()
        if key not in ("store", "out", "init", "start", "pairs")
    }
    metadata = loaded.metadata | {"name": name, "options": options}
    training = metadata.get("training", {})
    if training.get("init"):
        metadata["training"] = training | {"init": Path(training["init"]).name}
    if len(sys.argv) > 3:
        metadata["distillation"] = metadata["distillation"] | {"teacher": sys.argv[3]}
    save_model(target, loaded.denoiser, metadata=metadata, dtype="float16")
    print(f"{target.name}: {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
