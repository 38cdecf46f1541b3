"""Put the stages of a cascade among the weights that ship, as one file in half precision.

    python apps/t1/ship_cascade.py NAME RUN [RUN ...] --steps 3 3 2 --corruptions 0.05 0.05 0.03 --stochastic 1 0 0
        --worse early - - --guidances 2 1 1

RUNs are those of `radiata-t1 train --stage`, or of `distil` on them, coarsest first; --worse names an earlier or
smaller run of a stage, which guides it, or - for none. Run from a checkout; `radiata-t1 sample
--cascade NAME` then finds it. The model card is written by hand beside it.
"""

import argparse
from pathlib import Path

from radiata_core.checkpoint import load_model, save_model
from radiata_core.refinement import Cascade
from radiata_core.runs import read_json
from radiata_t1.model.cascades import guided, joined


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", nargs="+", type=int, required=True)
    parser.add_argument("--corruptions", nargs="+", type=float, required=True)
    parser.add_argument("--stochastic", nargs="+", type=int)
    parser.add_argument("--worse", nargs="+", default=[])
    parser.add_argument("--guidances", nargs="+", type=float, default=[])
    options = parser.parse_args()
    models = [load_model(run) for run in options.runs]
    for number, worse in enumerate(options.worse):
        if worse != "-":
            models[number] = guided(models[number], load_model(worse), options.guidances[number])
    whole, metadata, _ = joined(models)
    cascade = Cascade(
        list(whole.stages),
        whole.spacing,
        options.steps,
        options.corruptions,
        [bool(s) for s in options.stochastic or ()] or None,
    )  # type: ignore[arg-type]
    records = [read_json(run / "run.json") if (run / "run.json").is_file() else {} for run in options.runs]
    own = ("store", "out", "init", "model", "pairs")
    stages = [
        {
            key: model.metadata.get(key)
            for key in ("coarse_spacing_mm", "block", "training", "distillation", "step", "worse")
        }
        | {"options": {k: v for k, v in record.get("options", {}).items() if k not in own}}
        for model, record in zip(models, records, strict=True)
    ]
    kept = {key: metadata[key] for key in ("field_mm", "axcodes", "intended_use") if key in metadata}
    target = Path(__file__).parent / "src" / "radiata_t1" / "weights" / f"{options.name}.safetensors"
    save_model(target, cascade, metadata=kept | {"name": options.name, "stages": stages}, dtype="float16")
    print(f"{target.name}: {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
