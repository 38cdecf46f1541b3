"""Train the picture generator that ships with radiata-decode, and the basis of pictures beside it.

    OMP_NUM_THREADS=1 python apps/decode/train_picture_generator.py EMOJI --out runs/pictures [--steps 3000] [--resume]

EMOJI is the unpacked npm package `emoji-datasource-google` 16.0.0 (`npm pack emoji-datasource-google`; images of Noto Emoji,
Apache-2.0). Photographs come from the wheels of scikit-image and scikit-learn, their left 70 % only. Pictures:

    20 000 crops of photographs, no category
     8 x 900 pictures of a category: emoji on crops or plain ground, moved, scaled, turned, mirrored, tinted; faces also
             from scikit-image's subset of LFW; scrambled ones are pictures cut into squares that were dealt out again
     3 000 other emoji, no category

`picture-basis` is fitted on the crops alone. `--ship` copies basis and weights (float16) into the package.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import lfw_subset

from radiata_core.checkpoint import load_model, save_model
from radiata_core.files import write_json
from radiata_core.seeds import rng_of
from radiata_core.train import TrainOptions, train
from radiata_decode.data.loading import unit_images
from radiata_decode.data.photographs import photograph_crops
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.picture_prior import (
    CATEGORIES,
    CENTRE,
    SPREAD,
    GuessLaw,
    GuessRegression,
    build_picture_prior,
)

SIZE = 32
WORDS = {
    "bottle": ("BABY BOTTLE", "BOTTLE WITH POPPING CORK", "LOTION BOTTLE", "SAKE BOTTLE AND CUP"),
    "cat": ("CAT", "BLACK CAT", "CAT FACE"),
    "chair": ("CHAIR", "SEAT", "COUCH AND LAMP"),
    "house": ("HOUSE BUILDING", "HOUSE WITH GARDEN", "DERELICT HOUSE"),
    "scissors": ("BLACK SCISSORS",),
    "shoe": (
        "MANS SHOE",
        "ATHLETIC SHOE",
        "HIGH-HEELED SHOE",
        "WOMANS SANDAL",
        "WOMANS BOOTS",
        "HIKING BOOT",
        "FLAT SHOE",
    ),
}


def emoji_of(folder: Path) -> dict[str, list[np.ndarray]]:
    """Category (or "other") -> RGBA pictures of 64 x 64."""
    table = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*CATEGORIES, "other")}
    for row in table:
        path = folder / "img" / "google" / "64" / row["image"]
        if not path.is_file() or row["category"] in ("Flags", "Component"):
            continue
        picture = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        named = [category for category, names in WORDS.items() if row["name"] in names]
        if row["subcategory"].startswith("face-") and row["category"] == "Smileys & Emotion":
            named = ["face"]
        found[named[0] if named else "other"].append(picture)
    return found


def composed(picture: np.ndarray, ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An RGBA picture on a ground, moved, scaled, turned, mirrored and tinted: (SIZE, SIZE, 3) uint8."""
    side = 2 * SIZE
    angle, scale = rng.normal(0, 12), rng.uniform(0.65, 1.15)
    matrix = cv2.getRotationMatrix2D((32, 32), angle, scale)
    matrix[:, 2] += rng.normal(0, 4, 2)
    moved = cv2.warpAffine(picture[:, :: rng.choice([-1, 1])], matrix, (side, side), flags=cv2.INTER_LINEAR)
    small = cv2.resize(moved.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    alpha = small[..., 3:] / 255
    colour = np.clip(small[..., :3] * rng.uniform(0.75, 1.2, 3), 0, 255)
    if rng.random() < 0.3:
        colour = np.repeat(colour.mean(-1, keepdims=True), 3, -1)
    return np.clip(alpha * colour + (1 - alpha) * ground, 0, 255).astype(np.uint8)


def ground_of(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A plain colour, or a faint crop."""
    plain = np.ones((SIZE, SIZE, 3), np.float32) * rng.uniform(90, 255, 3 if rng.random() < 0.5 else 1)
    if rng.random() < 0.5:
        return plain
    return 0.5 * plain + 0.5 * crops[int(rng.integers(len(crops)))]


def scrambled(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Squares of 4 pixels dealt out again."""
    count = SIZE // 4
    blocks = picture.reshape(count, 4, count, 4, 3).swapaxes(1, 2).reshape(-1, 4, 4, 3)
    return (
        blocks[rng.permutation(len(blocks))]
        .reshape(count, count, 4, 4, 3)
        .swapaxes(1, 2)
        .reshape(SIZE, SIZE, 3)
    )


def pictures_of(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, y, x, 3) uint8 and their category, -1 where none is told; crops first."""
    crops = photograph_crops(20_000, "train", SIZE, rng_of(seed, 71)).pictures
    rng = rng_of(seed, 72)
    emoji = emoji_of(folder)
    faces = [(255 * face).astype(np.uint8) for face in lfw_subset()[:100]]
    made, codes = [crops], [np.full(len(crops), -1)]
    for code, name in enumerate((*CATEGORIES, "other")):
        rows = []
        for _ in range(3000 if name == "other" else 900):
            kind = (
                str(rng.choice([w for w in CATEGORIES if w != "scrambledpix"]))
                if name == "scrambledpix"
                else name
            )
            if kind == "face" and rng.random() < 0.5:
                grey = cv2.resize(
                    faces[int(rng.integers(len(faces)))], (64, 64), interpolation=cv2.INTER_CUBIC
                )
                rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
            else:
                rgba = emoji[kind][int(rng.integers(len(emoji[kind])))]
            picture = composed(rgba, ground_of(crops, rng), rng)
            rows.append(scrambled(picture, rng) if name == "scrambledpix" else picture)
        made.append(np.stack(rows))
        codes.append(np.full(len(rows), -1 if name == "other" else code))
    return np.concatenate(made), np.concatenate(codes)


class Pictures(torch.utils.data.Dataset):
    """Items for the training loop, in units of the state; every second time mirrored."""

    def __init__(self, pictures: np.ndarray, codes: np.ndarray) -> None:
        self.pictures, self.codes = pictures, codes

    def __len__(self) -> int:
        return 2 * len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row, mirrored = index // 2, index % 2
        picture = torch.from_numpy(self.pictures[row]).movedim(-1, 0).float() / 255
        weights = torch.full((len(CATEGORIES),), torch.nan)
        if self.codes[row] >= 0:
            weights = torch.eye(len(CATEGORIES))[int(self.codes[row])]
        picture = picture.flip(-1) if mirrored else picture
        return {"image": (picture - CENTRE) / SPREAD, "class_weights": weights}


def ship(out: Path) -> None:
    """Copy basis and model into the package, in half precision."""
    folder = Path(__file__).parent / "src" / "radiata_decode" / "weights"
    loaded = load_model(out / "model.safetensors")
    save_model(
        folder / "picture-prior.safetensors", loaded.denoiser, metadata=loaded.metadata, dtype="float16"
    )
    codec = PcaCodec.load(out / "picture-basis.safetensors")
    PcaCodec(codec.mean.half(), codec.components.half(), codec.sd.half(), codec.shape).save(
        folder / "picture-basis.safetensors"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("emoji", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", choices=["cpu", "auto"], default="cpu")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--ship", action="store_true")
    arguments = parser.parse_args()
    pictures, codes = pictures_of(arguments.emoji, 0)
    crops = unit_images(pictures[codes == -1][:20_000])
    codec = PcaCodec.fit(crops, 300)
    codec.save(arguments.out / "picture-basis.safetensors")
    law = GuessLaw((codec.mean - CENTRE) / SPREAD, codec.components, codec.sd / SPREAD, drop=0.2)
    options = TrainOptions(
        steps=arguments.steps, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate, warmup=200,
        cosine=True, weight_decay=0.01, ema=(0.05,), device=arguments.device, log_every=25, checkpoint_every=250,
        condition_dropout=0.1, resume=arguments.resume, tensorboard=False,
    )  # fmt: skip
    metadata = {
        "application": "radiata-decode",
        "task": "pictures",
        "size": SIZE,
        "categories": list(CATEGORIES),
        "centre": CENTRE,
        "spread": SPREAD,
        "training": {
            "crops": 20_000,
            "category_pictures": 7200,
            "other_emoji": 3000,
            "batch_size": options.batch_size,
        },
        "intended_use": "Research: pictures of 32 x 32 pixels decoded from fMRI. Not for clinical use.",
    }
    trained = train(
        build_picture_prior(),
        GuessRegression(law),
        Pictures(pictures, codes),
        arguments.out,
        options,
        metadata=metadata,
    )
    write_json(arguments.out / "training.json", {"step": trained.step, "steps": options.steps})
    if arguments.ship:
        ship(arguments.out)


if __name__ == "__main__":
    main()
