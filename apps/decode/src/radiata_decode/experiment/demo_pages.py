"""What the demo shows: pictures, flow, categories, each beside its controls; drawn at random, never the best alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from radiata_core.files import read_json
from radiata_decode.experiment.flow_figures import flow_gallery, ranked
from radiata_decode.model.motion_scores import motion_scores
from radiata_decode.model.score_table import ScoreRow
from radiata_imaging.report import Image, Provenance, Section, Table, Text, write_report

__all__ = ["category_section", "image_section", "motion_section", "picture_rows", "write_page"]

WARNING = (
    "Reconstructions are outputs of a model, not photographs of thoughts. The cortex of the first two parts is simulated; "
    "real brains give less. Research only, not for clinical use."
)
_COLUMNS = 10
_HEADER = ("decoder", "metric", "mean", "95 % interval", "p", "chance", "control")


def picture_rows(rows: Mapping[str, Tensor], which: Sequence[int], caption: str) -> Figure:
    """Pictures (n, 3, y, x) of some stimuli, a row for each name.

    Args:
        rows: Name -> pictures in [0, 1].
        which: Stimuli, a column each.
        caption: Above all.
    """
    figure = Figure(figsize=(0.95 * len(which) + 1.5, 0.98 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), len(which), squeeze=False)
    for axes, (name, pictures) in zip(grid, rows.items(), strict=True):
        for cell, row in zip(axes, which, strict=True):
            cell.imshow(pictures[row].movedim(0, -1).clamp(0, 1).numpy(), interpolation="nearest")
            cell.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(caption, fontsize=8)
    return figure


def _table(rows: Sequence[ScoreRow], metrics: Sequence[str], caption: str) -> Table:
    kept = [row for row in rows if row.metric in metrics]
    cells = [
        (row.decoder, row.metric, row.mean, (row.low, row.high), row.p, row.chance, row.control)
        for row in kept
    ]
    return Table(_HEADER, cells, caption)


def image_section(
    truth: Tensor,
    shown: Mapping[str, Tensor],
    controls: Mapping[str, Tensor],
    rows: Sequence[ScoreRow],
    rng: np.random.Generator,
) -> Section:
    """Gallery and table of pictures."""
    which = rng.permutation(len(truth))[: min(_COLUMNS, len(truth))].tolist()
    gallery = picture_rows(
        {"seen": truth, **shown, **controls},
        which,
        "simulated cortex; test pictures drawn at random; model outputs",
    )
    said = (
        "Test pictures are cut from the right 30 % of photographs whose left 70 % was trained on: other pixels, the same "
        "scenes. SSIM likes grey pictures: read no metric alone. p by permuting which brain belongs to which picture."
    )
    metrics = ("pixcorr", "ssim", "pixels 2-way")
    return Section(
        "Pictures from a simulated cortex",
        (
            Text(said),
            Image(gallery, "Seen pictures, decoders and controls."),
            _table(rows, metrics, f"{len(truth)} pictures."),
        ),
    )


def motion_section(
    truth: Tensor,
    flow: Tensor,
    controls: Mapping[str, Tensor],
    frames: Tensor,
    rows: Sequence[ScoreRow],
    rng: np.random.Generator,
) -> Section:
    """Gallery and table of motion."""
    values = motion_scores(truth, flow).correlation
    columns = {"true": truth, "decoded": flow, "permuted": controls["permuted brain"]}
    gallery = flow_gallery(
        {name: part.numpy() for name, part in columns.items()}, ranked(values, rng), frames=frames.numpy(), values=values,
        synthetic=True,
    )  # fmt: skip
    said = (
        "Endpoint errors (EPE) are in cells a frame step. A decoder has to beat no motion at all: a confident guess of "
        "motion does worse than predicting none."
    )
    kept = dict.fromkeys(row.metric for row in rows)
    return Section(
        "Motion from a simulated cortex",
        (
            Text(said),
            Image(gallery, "Best, median, worst and random films."),
            _table(rows, list(kept), f"{len(truth)} films."),
        ),
    )


def category_section(
    truth: Sequence[str],
    categories: Sequence[str],
    probabilities: np.ndarray,
    pictures: Tensor | None,
    row: Mapping[str, Any],
) -> Section:
    """Accuracy, probabilities of the test blocks, and pictures of what was decoded."""
    said = (
        f"Real fMRI: one slice, 530 voxels, 8 categories (Haxby et al. 2001). Leaving out one run after another, "
        f"{row['mean']:.2f} of the blocks are right [{row['low']:.2f}, {row['high']:.2f}]; chance is {row['chance']:.3f}, p "
        f"{row['p']:.3g}. Below, two runs that the classifier was not trained on."
    )
    cells = [
        (name, categories[int(part.argmax())], float(part.max()), float(part[list(categories).index(name)]))
        for name, part in zip(truth, probabilities, strict=True)
    ]
    blocks: list[Any] = [Text(said)]
    if pictures is not None:
        made = pictures.movedim(-1, 1).float() / 255
        which = list(range(min(16, len(made))))
        figure = picture_rows(
            {"made": made}, which, "pictures of the decoded category, made by the generator; nobody saw them"
        )
        for cell, number in zip(figure.axes, which, strict=False):
            cell.set_title(truth[number], fontsize=7)
        blocks.append(
            Image(
                figure,
                "Above each: what was shown. Pictures of a category, not of the object seen; hardly to be recognised.",
            )
        )
    blocks.append(
        Table(("shown", "decoded", "probability", "of the shown"), cells, "Blocks of runs 11 and 12.")
    )
    return Section("Categories from real fMRI", tuple(blocks))


def write_page(folder: Path, sections: Sequence[Section]) -> Path:
    """report.html of a demo's folder, the last of its files: the record still says "running", which the page leaves out."""
    record = read_json(folder / "run.json")
    page = [Section("What this is", (Text(WARNING, warning=True),)), *sections]
    page.append(
        Section(
            "Provenance", (Provenance({k: v for k, v in record.items() if k not in ("scores", "state")}),)
        )
    )
    return write_report(folder / "report.html", "radiata-decode demo", page, synthetic=True)
