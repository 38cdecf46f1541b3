"""`radiata-t1 evaluate`: synthetic heads against people the generator never saw, with the floor beside every figure."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_imaging.region_tables import RegionTable
    from radiata_imaging.store import Store
    from radiata_t1.data.heads import Heads
    from radiata_t1.data.segmented import Segmenter

__all__ = ["Evaluate"]

_KEPT = "meshnet-{}.csv"


@dataclass(frozen=True)
class Evaluate:
    """Compare synthetic heads with held-out people: distances, spectra, intensities, regions, copies, diversity.

    Writes evaluation.html, evaluation.json, findings.csv, figures with their numbers, and features.npz. N is people on the
    real side, not scans. The figures are named KID and MMD on named features; none is comparable with a published FID.

    Example: radiata-t1 evaluate heads/ --reference store.h5 --out evaluation

    Example: radiata-t1 evaluate heads/ --reference store.h5 --regions ours.csv --reference-regions real.csv --out by-region

    Example: radiata-t1 evaluate heads/ --reference store.h5 --meshnet brainchop/model20chan3cls --out evaluation
    """

    synthetic: tyro.conf.Positional[Path]
    """Folder of synthetic volumes (radiata-t1 sample), or a store."""
    reference: Path
    """Store of real heads with training and held-out people (radiata-t1 prepare)."""
    out: Path
    """Folder to write to."""
    labels: Path | None = None
    """Folder of label maps of the synthetic heads, FreeSurfer / SynthSeg codes."""
    regions: Path | None = None
    """Regional volumes of the synthetic heads: SynthSeg CSV, aseg.stats, FastSurfer folder, plain table."""
    reference_labels: Path | None = None
    """Folder of label maps of held-out real heads; otherwise the volumes in the store."""
    reference_regions: Path | None = None
    """Regional volumes of held-out real heads; otherwise the volumes in the store."""
    meshnet: Path | None = None
    """Folder of a brainchop MeshNet you have (model.json, weights): segments synthetic heads, and real ones unless
    their volumes are known by the same names. About a CPU-minute a head at 1 mm; a stopped run goes on."""
    meshnet_limit: int = 40
    """Most heads of each set that MeshNet segments, evenly spaced."""
    permutations: int = 999
    """Draws of each permutation test; 999 resolves p = 0.001."""
    limit: int = 500
    """Most volumes read from each set, evenly spaced; bounds memory to about 0.6 MB a volume."""
    seed: int = 0
    """Seed of permutations, bootstraps and subsets."""
    overwrite: bool = False
    """Replace an earlier evaluation in the folder."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: sets that cannot be compared, or a folder that has content.
        """
        from radiata_core.runs import Run, sha256
        from radiata_imaging.store import Store

        if self.permutations < 19 or self.limit < 4:
            raise InputError(
                f"expected --permutations of 19 or more and --limit of 4 or more; got {self.permutations} and {self.limit}."
            )
        if sum(source is not None for source in (self.labels, self.regions, self.meshnet)) > 1:
            raise InputError(
                "expected one source of the synthetic heads' regional volumes; got several. "
                "Choose --labels, --regions or --meshnet."
            )
        segmenter = self._segmenter()
        with Store(self.reference) as store:
            synthetic, train, held_out = self._sets(store)
            data = {self.reference.name: sha256(self.reference)}
            with Run(
                self.out, "radiata-t1 evaluate", self, seed=self.seed, data=data, overwrite=self.overwrite,
                resume=segmenter is not None and not self.overwrite and self._stopped(),
            ) as run:  # fmt: skip
                self._work(store, synthetic, train, held_out, segmenter, run)
        print(self.out / "evaluation.html")

    def _segmenter(self) -> "Segmenter | None":
        if self.meshnet is None:
            return None
        if self.meshnet_limit < 2:
            raise InputError(f"expected --meshnet-limit of 2 or more; got {self.meshnet_limit}.")
        from radiata_t1.data.segmented import Segmenter

        return Segmenter.of(self.meshnet)

    def _stopped(self) -> bool:
        """Whether the folder holds an evaluation that was stopped while it segmented."""
        from radiata_core.runs import read_json

        record = self.out / "run.json"
        if not record.is_file() or not (self.out / _KEPT.format("synthetic")).is_file():
            return False
        earlier = read_json(record)
        return earlier.get("command") == "radiata-t1 evaluate" and earlier.get("state") != "done"

    def _sets(self, store: "Store") -> "tuple[Heads, Heads, Heads]":
        from radiata_t1.data.heads import heads_of, of_store

        synthetic = heads_of(self.synthetic, store.spec, self.limit)
        train = of_store(store, ("train",), self.limit, "training people")
        held_out = of_store(store, ("test",), self.limit, "test people")
        if len(set(held_out.people or ())) < 4:
            held_out = of_store(
                store, ("validation", "test"), self.limit, "held-out people (validation and test)"
            )
        if len(train) < 3 or len(synthetic) < 2 or len(set(held_out.people or ())) < 2:
            raise InputError(
                f"expected three training volumes, two held-out people and two synthetic volumes or more; got "
                f"{len(train)}, {len(set(held_out.people or ()))} and {len(synthetic)}. "
                "Prepare more people, draw more seeds."
            )
        return synthetic, train, held_out

    def _work(
        self, store: "Store", synthetic: "Heads", train: "Heads", held_out: "Heads",
        segmenter: "Segmenter | None", run: Any,
    ) -> None:  # fmt: skip
        import numpy as np

        from radiata_core.runs import progress
        from radiata_imaging.evaluation import Instruments, compare_sets, feature_tables, measure
        from radiata_t1.experiment.findings import copies, figures, keep, regions, variety

        rng = np.random.default_rng(self.seed)
        edge = store.spec.spacing
        instruments = Instruments.of(synthetic.shape, (edge, edge, edge))
        sets = [
            measure(
                progress(heads, f"read {heads.name}", unit="head", total=len(heads)),
                heads.people,
                instruments,
            )
            for heads in (train, synthetic, held_out)
        ]
        control_heads = train.near_copies(rng)
        control = measure(control_heads, None, instruments)
        tables = feature_tables(sets[0], [sets[1], sets[2], control], instruments)
        compared = {name: rows[:3] for name, rows in tables.items()}
        result: dict[str, Any] = {
            "format": "radiata-evaluation/1",
            "sets": [
                {"name": heads.name, "volumes": len(one), "people": one.units if heads.people else None}
                for heads, one in zip((train, synthetic, held_out), sets, strict=True)
            ],
            "notes": [*synthetic.notes],
            "findings": compare_sets(sets[1], sets[2], compared, instruments, rng, self.permutations),
            "memorisation": copies(sets, control, tables, instruments, synthetic.names, train.names, rng),
            "diversity": variety(sets[1], sets[2], compared, instruments, rng),
        }
        pair = self._segmented(store, synthetic, held_out, segmenter, result) if segmenter else None
        result["regions"] = regions(pair or self._regions(store, held_out), rng, self.permutations)
        keep(self.out, result, figures(sets, synthetic, held_out, instruments), compared, run)

    def _segmented(
        self,
        store: "Store",
        synthetic: "Heads",
        held_out: "Heads",
        segmenter: "Segmenter",
        result: dict[str, Any],
    ) -> "tuple[RegionTable, RegionTable]":
        """Volumes by MeshNet: of the synthetic heads, and of the real ones unless they are given by the same names."""
        import sys

        from radiata_t1.data.heads import evenly
        from radiata_t1.data.segmented import coarse_note, segmented_table

        note = coarse_note(store.spec)
        if note:
            print(f"radiata-t1 evaluate: warning: {note}", file=sys.stderr)
            result["notes"].append(note)

        def measured(heads: "Heads", name: str) -> "RegionTable":
            rows = evenly(len(heads), self.meshnet_limit)
            kept = self.out / _KEPT.format(name)
            return segmented_table(heads, rows.tolist(), store.spec, segmenter, kept)

        ours = measured(synthetic, "synthetic")
        given = self._given(store, held_out)
        real = given if given and set(given.regions) & set(ours.regions) else measured(held_out, "reference")
        where = "both sides" if real is not given else "the synthetic side; real volumes as given"
        result["notes"].append(f"Regional volumes: MeshNet {segmenter.model.name}, {where}.")
        return ours, real

    def _given(self, store: "Store", held_out: "Heads") -> "RegionTable | None":
        """Volumes of the real heads from the options, or from the store where it has some."""
        from radiata_imaging.region_tables import read_regions
        from radiata_t1.data.heads import labels_table, store_table

        if self.reference_regions:
            return read_regions(self.reference_regions)
        if self.reference_labels:
            return labels_table(self.reference_labels)
        try:
            return store_table(store, held_out.indices)
        except InputError:
            return None

    def _regions(self, store: "Store", held_out: "Heads") -> "tuple[RegionTable, RegionTable] | None":
        from radiata_imaging.region_tables import read_regions
        from radiata_t1.data.heads import labels_table, store_table

        if self.regions is None and self.labels is None:
            return None
        synthetic = read_regions(self.regions) if self.regions else labels_table(self.labels or Path())
        if self.reference_regions:
            return synthetic, read_regions(self.reference_regions)
        if self.reference_labels:
            return synthetic, labels_table(self.reference_labels)
        return synthetic, store_table(store, held_out.indices)
