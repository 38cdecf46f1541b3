"""Pictures from a simulated cortex: the decoder, the generator that ships, every control, and the ceiling.

A section of `benchmarks/decode.py`. A seed is another set of photographs' crops, another person and other noise: 1000
training and 200 test pictures, each seen three times; training crops lie in the left 70 % of their photographs, test crops
in the rest.

ridge             the decoder's own picture (`--generator none`)
sharpness 1       the same with its variance restored from leave-one-out R² of training
re-z-scored       the same with each latent z-scored over the *test* predictions, as Brain-Diffuser does: computed here
                  alone, as no command of ours looks at other test stimuli
own, mean         the generator that ships: the mean of its draws (the default)
own, one draw     one of them
noise-free, ...   responses without noise through the same decoder; retrained: a ridge that was trained without noise too,
                  the higher of both and therefore the ceiling
controls          mean training picture, permuted brain (the default's pictures, each given to another stimulus), retrieval
                  (the training picture whose response is most similar)
"""

import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.shipped_weights import shipped_weights
from radiata_decode.data.loading import unit_images
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.image_decoding import condition_of, decode_images, responses_of
from radiata_decode.experiment.image_training import ImageOptions, train_images
from radiata_decode.experiment.simulating import noise_free, write_simulated_subject
from radiata_decode.experiment.trained_models import ModelCard, read_card
from radiata_decode.model.controls import mean_image, permuted_brain
from radiata_decode.model.extractors import GaborFeatures
from radiata_decode.model.image_decoder import ImageDecoder, fit_image_decoder
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.ridge import SharedRidge
from radiata_decode.model.score_table import ScoreRow, score_differences, score_predictions, score_table

CONTROLS = ("mean image", "permuted brain", "retrieval")
RIDGE, OWN = "ridge", "own, mean"
METRICS = ("pixcorr", "ssim", "pixels 2-way", "gabor 2-way")
Figures = dict[str, dict[str, list[ScoreRow]]]  # decoder → metric → a row a seed


def image_section(*, seeds: int = 3, quick: bool = False) -> dict[str, Any]:
    """Scores of everything above, and the keys that begin with pixcorr and twoway."""
    train, test, draws = (200, 40, 100) if quick else (1000, 200, 1000)
    shipped = shipped_weights("radiata_decode")
    basis = "shipped" if "picture-basis" in shipped else "training"
    own = "picture-prior" in shipped and basis == "shipped"
    if not own:
        print("image: the own generator's weights are not there: its rows are left out")
    found: Figures = defaultdict(lambda: defaultdict(list))
    gains: dict[str, list[Any]] = defaultdict(list)
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            subject = write_simulated_subject(
                Path(name) / "subject", kind="image", train=train, test=test, seed=seed, subject=seed
            )
            truth, made = reconstructions(subject, Path(name), basis, own)
        rng = np.random.default_rng(seed)
        made["permuted brain"] = permuted_brain(made[OWN if own else RIDGE], rng)
        decoders = {key: value for key, value in made.items() if key not in CONTROLS}
        controls = {key: made[key] for key in CONTROLS}
        gabor = [GaborFeatures()]
        for row in score_table(truth, decoders, rng, controls=controls, extractors=gabor, draws=draws):
            found[row.decoder][row.metric].append(row)
        if own:
            ours, theirs = (score_predictions(truth, made[key], gabor) for key in (OWN, RIDGE))
            for metric, gain in score_differences(ours, theirs, rng).items():
                gains[metric].append(gain.difference)
    print_table(
        f"image, {train} training and {test} test pictures, {seeds} seeds, basis {basis}", found, METRICS
    )
    for metric in METRICS if own else ():
        print(f"  {OWN} - {RIDGE}: {metric:14}" + "; ".join(_interval(gain) for gain in gains[metric]))
    return figures(found, own) | {"image_gains": {k: [_interval(g) for g in v] for k, v in gains.items()}}


def figures(found: Figures, own: bool) -> dict[str, Any]:
    """Means over seeds by their keys, then everything."""
    best, same = (OWN, "noise-free, own, mean") if own else (RIDGE, "noise-free, ridge")
    keys = {
        "pixcorr": (best, "pixcorr"),
        "twoway": (best, "pixels 2-way"),
        "pixcorr_ridge": (RIDGE, "pixcorr"),
        "twoway_ridge": (RIDGE, "pixels 2-way"),
        "pixcorr_ceiling": ("noise-free, ridge retrained", "pixcorr"),
        "pixcorr_noise_free_same_decoder": (same, "pixcorr"),
    }
    told: dict[str, Any] = {
        key: float(np.mean([row.mean for row in found[decoder][metric]]))
        for key, (decoder, metric) in keys.items()
    }
    told["pixcorr_of_ceiling"] = told["pixcorr"] / told["pixcorr_ceiling"]
    told["image"] = plain(found)
    print(
        f"  PixCorr is {told['pixcorr_of_ceiling']:.2f} of the ceiling, and "
        f"{told['pixcorr'] / told['pixcorr_noise_free_same_decoder']:.2f} of the same decoder's without noise",
        flush=True,
    )
    return told


def reconstructions(
    subject: Subject, folder: Path, basis: str, own: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """True test pictures, and pictures by decoder or control, all (n, 3, y, x) in [0, 1]."""
    card = trained(subject, folder / "image", basis)
    task = Decode(subject.folder, model=card.folder, out=folder / "decoded", generator="none")
    heard = responses_of(subject, card, task)
    stimuli = read_stimuli(subject.folder)
    truth = unit_images(stimuli.images(heard.stimulus), 32)
    seen = unit_images(stimuli.images(card.facts["training_stimuli"]), 32)

    made = {RIDGE: shown(subject, card, task)}
    made["sharpness 1"] = shown(subject, card, replace(task, sharpness=1.0))
    decoder, codec = ImageDecoder.load(card.folder), PcaCodec.load(card.folder / "codec.safetensors")
    made["re-z-scored over the test set"] = codec.decode(re_z_scored(decoder, heard.responses))
    if basis != "training":
        other = trained(subject, folder / "training-basis", "training")
        made["ridge, basis of its training pictures"] = shown(subject, other, task)

    silent = card.standardiser()
    quiet = silent.apply(noise_free(subject, heard.stimulus), None)
    plain_latents = decoder.decode(quiet)
    made["noise-free, ridge"] = codec.decode(plain_latents.low_level)
    taught = silent.apply(noise_free(subject, card.facts["training_stimuli"]), None)
    again = fit_image_decoder(SharedRidge(taught), codec.encode(seen)).decoder
    made["noise-free, ridge retrained"] = codec.decode(again.decode(quiet).low_level)
    if own:
        from radiata_decode.model.own_generator import own_generator

        drawn = decode_images(subject, card, replace(task, generator="own", draws=2)).arrays
        made[OWN] = unit_images(drawn["images"])
        made["own, one draw"] = unit_images(drawn["draws"][:, 0])
        made["noise-free, own, mean"] = own_generator().expected(condition_of(plain_latents, codec))
    made["mean image"] = mean_image(seen, len(truth))
    made["retrieval"] = shown(subject, card, replace(task, generator="retrieval"))
    return truth, made


def trained(subject: Subject, folder: Path, basis: str) -> ModelCard:
    """A decoder with the default options."""
    folder.mkdir(parents=True)
    train_images(subject, ImageOptions(basis=basis), folder)
    return read_card(folder)


def shown(subject: Subject, card: ModelCard, task: Decode) -> Tensor:
    """What the verb writes as images."""
    return unit_images(decode_images(subject, card, task).arrays["images"])


def re_z_scored(decoder: ImageDecoder, responses: np.ndarray) -> Tensor:
    """Latents with mean and standard deviation of training, by way of those of the test predictions."""
    if len(responses) < 2:
        raise InputError("expected several test stimuli: one alone has no standard deviation; got one.")
    low = decoder.decode(responses).low_level
    mean, sd = (part[: decoder.latents] for part in (decoder.ridge.target_mean, decoder.sd))
    return (low - low.mean(0)) / low.std(0, correction=0) * sd + mean


def print_table(title: str, found: Figures, metrics: tuple[str, ...]) -> None:
    """A line a decoder: mean over seeds, (least … most), and [the mean 95 % interval over stimuli of a seed]."""
    print(f"{title}: mean over seeds (least … most) [95 % interval over stimuli]")
    for decoder, rows in found.items():
        cells = [f"  {decoder:38}"]
        for metric in metrics:
            here = rows[metric]
            mean, low, high = (
                np.mean([getattr(row, key) for row in here]) for key in ("mean", "low", "high")
            )
            ends = [row.mean for row in here]
            cells.append(f"{metric} {mean:.3f} ({min(ends):.3f} … {max(ends):.3f}) [{low:.3f}, {high:.3f}]")
        print("  ".join(cells), flush=True)


def plain(found: Figures) -> dict[str, Any]:
    """For JSON."""
    return {
        decoder: {metric: [row.plain() for row in here] for metric, here in rows.items()}
        for decoder, rows in found.items()
    }


def _interval(gain: Any) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
