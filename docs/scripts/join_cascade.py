"""Stages of several runs in one file in half precision, as the shipped `cascade-1mm` is.

    python docs/scripts/join_cascade.py OUT.safetensors RUN STEPS CORRUPTION {jumps,fresh,solved,stochastic} [RUN ...]

Four words a stage, coarsest first: its run or file (RUN,WORSE,WEIGHT guides it), evaluations, sd of the noise put on what
it is given, and how it is drawn: jumps of a distilled stage, or jumps with fresh noise between them; a denoiser solved, or
solved stochastically.
"""

import json
import sys
from pathlib import Path
from typing import Any

from radiata_core.checkpoint import LoadedModel, load_model, save_model
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.refinement import Cascade
from radiata_t1.model.cascades import guided, joined
from radiata_t1.model.weights import find_model

OF_STAGE = ("coarse_spacing_mm", "block", "training", "distillation", "step", "worse", "options")


PATHS = ("store", "out", "model", "init", "start", "pairs", "worse", "preset")


def stage_of(word: str) -> LoadedModel:
    """The stage of a run, guided where a worse run and a weight follow."""
    run, *guidance = word.split(",")
    stage = load_model(find_model(run))
    if not guidance:
        return stage
    worse, weight = guidance
    return guided(stage, load_model(find_model(worse)), float(weight))


def options_of(run: Path) -> dict[str, Any]:
    """The options of the last command of a run folder, without paths; of a file, what its card says."""
    if not run.is_dir():
        return {}
    options = json.loads((run / "run.json").read_text(encoding="utf-8"))["options"]
    return {"options": {key: value for key, value in options.items() if key not in PATHS}}


def main() -> None:
    out, words = Path(sys.argv[1]), sys.argv[2:]
    if not words or len(words) % 4:
        raise InputError(f"expected four words a stage; got {len(words)}. See the head of this file.")
    models = [stage_of(word) for word in words[::4]]
    whole, metadata, _ = joined(models)
    how = words[3::4]
    for stage, word in zip(whole.stages, how, strict=True):
        ways = ("jumps", "fresh") if isinstance(stage.denoiser, NetworkFlowMap) else ("solved", "stochastic")
        if word not in ways:
            raise InputError(f"expected {' or '.join(ways)} for this stage; got {word}. Name another way.")
    cascade = Cascade(
        list(whole.stages),
        whole.spacing,
        [int(word) for word in words[1::4]],
        [float(word) for word in words[2::4]],
        [word in ("fresh", "stochastic") for word in how],
    )
    common = {key: value for key, value in metadata.items() if key not in (*OF_STAGE, "stages")}
    stages = [
        {key: model.metadata.get(key) for key in OF_STAGE} | options_of(Path(word.split(",")[0]))
        for model, word in zip(models, words[::4], strict=True)
    ]
    save_model(out, cascade, metadata=common | {"name": out.stem, "stages": stages}, dtype="float16")
    card = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    print(f"{out.name}: {out.stat().st_size / 1e6:.1f} MB, {card['denoiser']['steps']} evaluations")


if __name__ == "__main__":
    main()
