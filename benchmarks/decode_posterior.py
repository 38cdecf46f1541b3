"""The posterior mean from simulated responses beside the ridge, alone and joined, with the generator that ships.

    OMP_NUM_THREADS=1 python benchmarks/decode_posterior.py [--seeds 3] [--quick] [--json FILE]

Seeds, people, pictures, scores and the ridge are those of `decode_image.py`; two minutes of one core a person are for the
posterior mean. Everything it learns from is the person's training pictures and responses. Its encoding model and the
simulated cortex are of one family, local contrast energy, with other filters and colour axes: on a real brain the gain
depends on how good an encoding model is, and is not measured here.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from decode_image import METRICS, Figures, plain, print_table, trained
from radiata_core.files import write_json
from radiata_decode.data.loading import unit_images
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.image_decoding import responses_of
from radiata_decode.experiment.picture_decoding import PosteriorOptions, fit_picture_posterior, reconstruct
from radiata_decode.experiment.simulating import noise_free, write_simulated_subject
from radiata_decode.experiment.trained_models import standardised
from radiata_decode.model.extractors import GaborFeatures
from radiata_decode.model.image_decoder import ImageDecoder
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.own_generator import own_generator
from radiata_decode.model.score_table import score_differences, score_predictions, score_table

RIDGE, BEST = "ridge, own, mean (the default)", "joined, own, mean"


def pictures_of(
    subject: Subject, folder: Path, options: PosteriorOptions
) -> tuple[Tensor, dict[str, Tensor]]:
    """True test pictures, and reconstructions by name."""
    card = trained(subject, folder / "image", "shipped")
    heard = responses_of(subject, card, Decode(subject.folder, model=card.folder, out=folder / "decoded"))
    taught = standardised(subject, "train", card.standardiser(), card.voxels_of(subject), None)
    stimuli = read_stimuli(subject.folder)
    seen, truth = (unit_images(stimuli.images(part.stimulus), 32) for part in (taught, heard))
    decoder, codec = ImageDecoder.load(card.folder), PcaCodec.load(card.folder / "codec.safetensors")
    learnt = fit_picture_posterior(seen, taught.responses, codec, options)
    quiet = card.standardiser().apply(noise_free(subject, heard.stimulus), None)
    made, seeds = own_generator(), range(len(truth))
    found, silent = (decoder.decode(part) for part in (heard.responses, quiet))
    posterior = learnt.predict(heard.responses)
    alone = reconstruct(found, codec, made, seeds=seeds)
    joined = reconstruct(found, codec, made, seeds=seeds, posterior=posterior)
    return truth, {
        "ridge": alone.guess,
        RIDGE: alone.mean,
        "ridge, own, one draw": alone.draw,
        "posterior mean": codec.decode(posterior),
        "joined": joined.guess,
        BEST: joined.mean,
        "joined, own, one draw": joined.draw,
        "noise-free, joined, own, mean": reconstruct(
            silent, codec, made, seeds=seeds, posterior=learnt.predict(quiet)
        ).mean,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    train, test, draws = (150, 30, 100) if arguments.quick else (1000, 200, 1000)
    options = PosteriorOptions(copies=2, steps=50, hidden=64) if arguments.quick else PosteriorOptions()
    found: Figures = defaultdict(lambda: defaultdict(list))
    gains: dict[str, list[Any]] = defaultdict(list)
    for seed in range(1 if arguments.quick else arguments.seeds):
        rng, gabor = np.random.default_rng(seed), [GaborFeatures()]
        with tempfile.TemporaryDirectory() as name:
            subject = write_simulated_subject(
                Path(name) / "subject", train=train, test=test, seed=seed, subject=seed
            )
            truth, made = pictures_of(subject, Path(name), options)
        for row in score_table(truth, made, rng, extractors=gabor, draws=draws):
            found[row.decoder][row.metric].append(row)
        ours, theirs = (score_predictions(truth, made[key], gabor) for key in (BEST, RIDGE))
        for metric, gain in score_differences(ours, theirs, rng).items():
            gains[metric].append([gain.difference.mean, gain.difference.low, gain.difference.high])
    print_table(f"image, {train} training and {test} test pictures", found, METRICS)
    for metric in METRICS:
        told = "; ".join("{:+.3f} [{:+.3f}, {:+.3f}]".format(*gain) for gain in gains[metric])
        print(f"  {BEST} - {RIDGE}: {metric:14}{told}")
    if arguments.json:
        write_json(arguments.json, {"posterior": plain(found), "gains": dict(gains)})


if __name__ == "__main__":
    main()
