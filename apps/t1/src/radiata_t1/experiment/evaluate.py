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

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Compare synthetic heads with held-out people: distances, spectra, intensities, regions, copies, diversity.

    Writes evaluation.html, evaluation.json, findings.csv, figures with their numbers, and features.npz. N is people on the
    real side, not scans. The figures are named KID and MMD on named features; none is comparable with a published FID.

    Examples:
        radiata-t1 evaluate heads/ --reference store.h5 --out evaluation
        radiata-t1 evaluate heads/ --reference store.h5 --regions synthseg.csv --reference-regions real.csv --out evaluation
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
        with Store(self.reference) as store:
            synthetic, train, held_out = self._sets(store)
            data = {self.reference.name: sha256(self.reference)}
            with Run(
                self.out, "radiata-t1 evaluate", self, seed=self.seed, data=data, overwrite=self.overwrite
            ) as run:
                self._work(store, synthetic, train, held_out, run)
        print(self.out / "evaluation.html")

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

    def _work(self, store: "Store", synthetic: "Heads", train: "Heads", held_out: "Heads", run: Any) -> None:
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
        result["regions"] = regions(self._regions(store, held_out), rng, self.permutations)
        keep(self.out, result, figures(sets, synthetic, held_out, instruments), compared, run)

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
