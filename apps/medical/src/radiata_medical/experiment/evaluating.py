"""The work of evaluate: pairs, scores of each case, means over people, files.

results, references -> pairs -> a row of scores a case (and structure) -> means with intervals, differences -> files

cases.csv         a row a case; of label maps a row a case and structure
summary.csv       a row a score (and structure): mean, interval, people, what was left out
evaluation.json   both, with what was compared, how, and the reliability of probabilities
run.json          provenance
"""

import csv
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, write_json
from radiata_core.logs import progress
from radiata_core.runs import Run
from radiata_core.seeds import rng_of
from radiata_imaging.case_statistics import mean_interval, paired_difference
from radiata_imaging.nifti import read_volume
from radiata_medical.data.label_reading import like_labels
from radiata_medical.data.pairing import IMAGE_WORDS, LABEL_WORDS, Named, Pair, named_files, pair_files
from radiata_medical.experiment.outputs import generated_by, sources_of

if TYPE_CHECKING:
    from radiata_medical.experiment.evaluate import Evaluate

__all__ = ["COMMAND", "Row", "evaluate", "pairs_of"]

COMMAND = "radiata-medical evaluate"
Row = dict[str, Any]
_BOOTSTRAP, _FLIPS = 71, 72
_IDENTITY = ("case", "person", "structure")


def evaluate(task: "Evaluate") -> None:
    """Write the evaluation's folder and print its table."""
    results = named_files(task.results, "results")
    references = named_files(task.reference, "references")
    kind = _kind(results, task) if task.kind == "auto" else task.kind
    pairs, alone = pairs_of(results, references, kind)
    others = named_files(task.compare, "results to compare with") if task.compare else ()
    rivals = _same_cases(pairs, pairs_of(others, references, kind)[0], task) if others else ()
    scored = _scorer(task, kind, results)
    first = scored(
        pairs[0]
    )  # before the folder is made: what cannot be read, or is no such thing, leaves nothing
    compared = _scorer(task, kind, others)
    fresh = not task.out.exists()
    try:
        with Run(task.out, COMMAND, task, seed=task.seed, overwrite=task.overwrite) as run:
            rows = [first, *(scored(pair) for pair in progress(pairs[1:], "scoring", unit="case"))]
            theirs = [compared(pair) for pair in progress(rivals, "scoring the others", unit="case")]
            found = _found(task, kind, pairs, alone, rows, theirs)
            _write(task.out, found)
            run.note(data=found["sources"], cases=len(pairs))
    except InputError:
        if fresh:  # a later case that cannot be used leaves no half of an evaluation
            shutil.rmtree(task.out, ignore_errors=True)
        raise
    _say(found, task.out)


def _kind(results: Sequence[Named], task: "Evaluate") -> str:
    words = {one.word for one in results}
    if words & set(LABEL_WORDS) and not words & set(IMAGE_WORDS):
        return "labels"
    if words & set(IMAGE_WORDS) and not words & set(LABEL_WORDS):
        return "image"
    if words & set(IMAGE_WORDS):
        raise InputError(
            f"expected images or label maps in {task.results}; got both. Say --kind image or --kind labels."
        )
    volume = read_volume(results[0].path, assume_axcodes=task.assume_axcodes, allow_constant=True, min_axis=1)
    return "labels" if like_labels(volume.array) else "image"


def pairs_of(
    results: Sequence[Named], references: Sequence[Named], kind: str
) -> tuple[tuple[Pair, ...], tuple[Named, ...]]:
    """Pairs of the files that are of a kind: the images, or the label maps, not what lies beside them.

    Raises:
        InputError: there are none, or one has no partner.
    """
    words = LABEL_WORDS if kind == "labels" else IMAGE_WORDS
    wanted = [one for one in results if one.word in words] or [one for one in results if not one.word]
    if not wanted:
        what = "label maps" if kind == "labels" else "images"
        raise InputError(
            f"expected {what} among the results; got {results[0].path.name} and such. Say --kind, or rename them to "
            f"NAME_{words[0]}.nii.gz."
        )
    whole = [one for one in references if one.word in words] if kind == "labels" else []
    return pair_files(wanted, whole or [one for one in references if not one.word] or list(references))


def _same_cases(ours: Sequence[Pair], theirs: Sequence[Pair], task: "Evaluate") -> tuple[Pair, ...]:
    by_reference = {pair.reference.path: pair for pair in theirs}
    missing = [pair.reference.path.name for pair in ours if pair.reference.path not in by_reference]
    if missing:
        raise InputError(
            f"expected the same scans in {task.compare}; got none of {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}. Run the other method on them too."
        )
    return tuple(by_reference[pair.reference.path] for pair in ours)


def _scorer(task: "Evaluate", kind: str, files: Sequence[Named]) -> Any:
    """A function from a pair to its rows and what adds up over cases."""
    if kind == "image":
        from radiata_medical.experiment.evaluating_images import ImageScorer

        return ImageScorer(task, tuple(files))
    from radiata_medical.experiment.evaluating_labels import LabelScorer

    return LabelScorer(task, tuple(files))


def _found(
    task: "Evaluate",
    kind: str,
    pairs: Sequence[Pair],
    alone: Sequence[Named],
    scored: list[Any],
    theirs: list[Any],
) -> dict[str, Any]:
    rows = [row for one in scored for row in one.rows]
    found: dict[str, Any] = {
        "format": "radiata-medical-evaluation/1",
        "GeneratedBy": generated_by(),
        "kind": kind,
        "results": task.results.name,
        "reference": task.reference.name,
        "cases": len(pairs),
        "people": len({pair.reference.person for pair in pairs}),
        "level": task.level,
        "tolerance_mm": task.tolerance,
        "mask": task.mask or "none",
        "encoder": scored[0].encoder,
        "unscored_references": [one.path.name for one in alone],
        "sources": sources_of(
            *(pair.result.path for pair in pairs), *(pair.reference.path for pair in pairs)
        ),
        "rows": rows,
        "summary": _summary(rows, task),
    }
    reliabilities = [one.reliability for one in scored if one.reliability is not None]
    if reliabilities:
        whole = sum(reliabilities[1:], start=reliabilities[0])
        found["reliability"] = {
            "ece": whole.ece, "mce": whole.mce, "count": whole.count.tolist(),
            "confidence": whole.mean_confidence.tolist(), "accuracy": whole.accuracy.tolist(), "cases": len(reliabilities),
        }  # fmt: skip
    if theirs and task.compare:
        found["compared_with"] = task.compare.name
        found["comparison"] = _comparison(rows, [row for one in theirs for row in one.rows], task)
    return found


def _columns(rows: Sequence[Row]) -> list[str]:
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    return [name for name in names if name not in _IDENTITY and _is_score(rows, name)]


def _is_score(rows: Sequence[Row], name: str) -> bool:
    return all(isinstance(row[name], float) for row in rows if name in row) and any(
        not math.isnan(row[name]) for row in rows if name in row
    )


def _by_structure(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("structure", ""), []).append(row)
    return groups


def _summary(rows: list[Row], task: "Evaluate") -> list[Row]:
    table = []
    for structure, group in _by_structure(rows).items():
        for number, score in enumerate(_columns(group)):
            have = [row for row in group if score in row]
            values, people = [row[score] for row in have], [row["person"] for row in have]
            rng = rng_of(task.seed, _BOOTSTRAP, number)
            mean = mean_interval(values, people, rng, task.level, task.draws)
            table.append({
                **({"structure": structure} if structure else {}), "score": score, "mean": mean.mean, "low": mean.low,
                "high": mean.high, "people": mean.people, "cases": mean.cases, "left_out": mean.left_out,
            })  # fmt: skip
    return table


def _comparison(ours: list[Row], theirs: list[Row], task: "Evaluate") -> list[Row]:
    """Ours minus theirs, score by score, over the cases both have."""
    other = {(row["case"], row.get("structure", "")): row for row in theirs}
    table = []
    for structure, group in _by_structure(ours).items():
        for number, score in enumerate(_columns(group)):
            pairs = [(row, other.get((row["case"], structure), {})) for row in group]
            both = [(a, b) for a, b in pairs if score in a and score in b]
            if not both:
                continue
            rng = rng_of(task.seed, _FLIPS, number)
            paired = paired_difference(
                [a[score] for a, _ in both], [b[score] for _, b in both], [a["person"] for a, _ in both],
                rng, task.level, task.draws,
            )  # fmt: skip
            found = paired.difference
            table.append({
                **({"structure": structure} if structure else {}), "score": score, "difference": found.mean,
                "low": found.low, "high": found.high, "p": paired.p, "people": found.people, "cases": found.cases,
                "left_out": found.left_out,
            })  # fmt: skip
    return table


def _write(folder: Path, found: dict[str, Any]) -> None:
    _table(folder / "cases.csv", found["rows"])
    _table(folder / "summary.csv", found["summary"])
    if "comparison" in found:
        _table(folder / "comparison.csv", found["comparison"])
    write_json(folder / "evaluation.json", found)


def _table(path: Path, rows: Sequence[Row]) -> None:
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names), lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.7g}" if isinstance(value, float) else value for key, value in row.items()}
            for row in rows
        )


def _say(found: dict[str, Any], out: Path) -> None:
    if found["unscored_references"]:
        names = found["unscored_references"]
        print(f"{len(names)} references have no result: {', '.join(names[:3])}", file=sys.stderr)
    shown = [
        row
        for row in found["summary"]
        if row.get("structure", "") in ("", "mean of tissues", "mean of structures")
    ]
    for row in shown or found["summary"][:12]:
        name = " ".join(filter(None, [row.get("structure", ""), row["score"]]))
        interval = "" if math.isnan(row["low"]) else f"  [{row['low']:.4g}, {row['high']:.4g}]"
        left = f"  ({row['left_out']} left out)" if row["left_out"] else ""
        print(f"{name:<44} {row['mean']:10.4g}{interval}  n = {row['people']}{left}")
    for row in found.get("comparison", []):
        if row.get("structure", "") in ("", "mean of tissues", "mean of structures"):
            print(f"difference of {row['score']:<30} {row['difference']:+10.4g}  [{row['low']:.4g}, {row['high']:.4g}]  "
                  f"p = {row['p']:.3g}")  # fmt: skip
    print(f"{found['cases']} cases of {found['people']} people in {out}")
