"""`radiata-decode prepare`: whatever layout a laboratory has, or a simulation, in; one subject folder out.

    from-nsd        betas of the Natural Scenes Dataset, volumes or fsaverage, with its regions and noise ceilings
    from-bids       fMRIPrep's derivatives: one beta a trial (least squares all, separate, or ridge)
    from-cifti      films in CIFTI, by the recipe of CC2017
    from-surface    hemispheres in GIFTI, MGH or NumPy; the Algonauts challenge
    from-arrays     an array of responses and a table of trials
    from-haxby      blocks of categories, PyMVPA's or OpenfMRI's layout; without a source, the slice that ships
    simulate-images, simulate-motion    a simulated cortex that looks at real photographs, or at moving ones

A part (session, run, segment) is read, masked and kept; the folder appears when all are there. Interrupted work goes on
where it stopped when it is started again with the same options. `experiment.layouts` opens the layouts,
`experiment.trial_plan` says which trials are kept and on which side of the split.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_decode.data.reading import Reading
    from radiata_decode.data.stimuli import StimulusArrays
    from radiata_decode.experiment.trial_plan import TrialPlan

__all__ = ["LAYOUTS", "Prepare"]

_ALL = ("out", "layout", "source", "overwrite", "dry_run", "seed")
_SPLIT = (
    "test_runs",
    "test_stimuli",
    "test_share",
    "clusters",
    "validation_share",
    "repeats",
    "half",
)
_PICTURES = ("images", "image_size")
LAYOUTS: dict[str, tuple[str, ...]] = {
    "from-nsd": (*_SPLIT, "image_size", "subject", "mask", "rois", "betas", "space", "sessions", "without_ncsnr"),
    "from-bids": (
        *_SPLIT, *_PICTURES, "subject", "mask", "space", "task", "events", "stimulus_column", "repetition_time",
        "estimator", "hrf", "confounds", "high_pass", "shrinkage", "percent",
    ),
    "from-cifti": (
        *_SPLIT, "films", "image_size", "frames", "lag", "window", "mean_window", "reproducible", "cuts", "segments",
    ),
    "from-surface": (*_SPLIT, *_PICTURES, "trials", "mask", "rois"),
    "from-arrays": (*_SPLIT, *_PICTURES, "trials", "voxels", "key"),
    "from-haxby": (*_SPLIT, "mask", "lag", "detrend", "volumes"),
    "simulate-images": ("train_stimuli", "test_count", "showings", "voxel_count", "subject"),
    "simulate-motion": ("train_stimuli", "test_count", "showings", "voxel_count", "subject", "films"),
}  # fmt: skip
"""Layout → the options that it reads, beside those of all."""


@dataclass(frozen=True)
class Prepare:
    """Make one subject folder from a laboratory's own layout, or from a simulation.

    Layouts: from-nsd, from-bids (fMRIPrep), from-cifti (films), from-surface, from-arrays, from-haxby, simulate-images,
    simulate-motion. Parts are read one at a time and kept; the same command goes on after an interruption.

    Example: radiata-decode prepare from-nsd nsd --subject 1 --image-size 64 --out subj01

    Example: radiata-decode prepare from-bids derivatives/fmriprep --subject 01 --task scenes --space T1w --out sub-01

    Example: radiata-decode prepare from-cifti subject1/fmri --films stimuli --reproducible 0.01 --window -1 0 1 --out s1

    Example: radiata-decode prepare from-surface subj01 --test-share 0.1 --out algonauts01

    Example: radiata-decode prepare from-arrays betas.npy --trials trials.tsv --images pictures --out mine

    Example: radiata-decode prepare from-haxby --test-runs 1:11 1:12 --out haxby

    Example: radiata-decode prepare simulate-images --subject 2 --out person2
    """

    layout: tyro.conf.Positional[str]
    """from-nsd, from-bids, from-cifti, from-surface, from-arrays, from-haxby, simulate-images or simulate-motion."""
    out: Path
    """The subject folder to write."""
    source: tyro.conf.Positional[Path | None] = None
    """Folder or file of the layout; none for a simulation, and for from-haxby the slice that ships."""
    subject: str = "1"
    """Of from-nsd 1 to 8; of from-bids the label; of simulations the number of a person, who sees what the others see."""
    mask: str | None = None
    """Voxels to keep: a NIfTI file; of from-nsd also a name in its folder of regions (by default nsdgeneral); of
    surfaces a name of label files, or all."""
    rois: tuple[str, ...] = ()
    """Collections of regions for the voxels table, such as prf-visualrois floc-faces; by default all that are there;
    none."""
    betas: str = "betas_fithrf_GLMdenoise_RR"
    """Of from-nsd: version of the betas."""
    space: str | None = None
    """Of from-nsd func1pt8mm (default), func1mm or fsaverage; of from-bids T1w, MNI152NLin2009cAsym, fsaverage5, fsLR,
    ..."""
    sessions: tuple[int, ...] = ()
    """Of from-nsd: which; by default all that are there."""
    without_ncsnr: bool = False
    """Of from-nsd: go on without noise ceilings."""
    task: str | None = None
    """Of from-bids: label; needed where there are several."""
    events: Path | None = None
    """Of from-bids: folder of the raw data set with events.tsv; by default looked for above the derivatives."""
    stimulus_column: str | None = None
    """Of from-bids: column of the events that names the stimulus; by default stimulus, stim_file or trial_type."""
    repetition_time: float | None = None
    """Of from-bids: seconds between volumes, checked against sidecar and header."""
    estimator: str = "separate"
    """Of from-bids: all (LSA), separate (LSS) or ridge."""
    hrf: str = "glover"
    """Of from-bids: haemodynamic response, glover or spm."""
    confounds: tuple[str, ...] = ("motion", "wm_csf")
    """Of from-bids: words of nilearn's load_confounds (motion-full: with derivatives and squares); none for none."""
    high_pass: float = 0.01
    """Of from-bids: slowest drift that is kept, in Hz; not used with the confound high_pass."""
    shrinkage: float = 0.1
    """Of from-bids: of the estimator ridge, in units of the regressors' mean square."""
    percent: bool = False
    """Of from-bids: betas in percent of each voxel's mean, for series in scanner units."""
    films: Path | None = None
    """Of from-cifti: folder with seg1.mp4, test1.mp4, ...; of simulate-motion: films in place of moved photographs."""
    frames: int = 6
    """Of from-cifti: pictures of each volume's stretch of film."""
    lag: float | None = None
    """Of from-cifti (by default 4) and from-haxby (2.5): seconds by which responses follow."""
    window: tuple[int, ...] = (0,)
    """Of from-cifti: volumes of a trial relative to the lagged one, side by side in the voxels table."""
    mean_window: bool = False
    """Of from-cifti: average the volumes of the window."""
    reproducible: float | None = None
    """Of from-cifti: keep vertices whose repeats correlate at this corrected p, such as 0.01."""
    cuts: Path | None = None
    """Of from-cifti: table with segment (seg01) and onset_s of the film's cuts; no window crosses one."""
    segments: tuple[str, ...] = ()
    """Of from-cifti: which, such as seg01 test01; by default all."""
    detrend: int = 1
    """Of from-haxby: order of the polynomial removed from each run."""
    volumes: bool = False
    """Of from-haxby: a trial is a volume, not a block."""
    trials: Path | None = None
    """Of from-arrays and from-surface: table with stimulus, and session, run, repeat, split, category where known."""
    voxels: Path | None = None
    """Of from-arrays: table with a row a voxel."""
    key: str | None = None
    """Of from-arrays: name of the responses in a .npz, .h5 or .mat file."""
    images: Path | None = None
    """Folder of pictures named after the stimuli."""
    image_size: int | None = None
    """Pixels of a side; by default 425, of from-nsd linked and not copied, of films 64."""
    repeats: str = "all"
    """Showings of a stimulus to keep: all, or the first so many; of from-cifti also average."""
    test_runs: tuple[str, ...] = ()
    """Runs of the test, as session:run."""
    test_stimuli: Path | None = None
    """File with the name of a test stimulus in each line."""
    test_share: float | None = None
    """Share of the stimuli for the test, drawn by --seed; 0.1 where the layout has no split of its own."""
    clusters: int | None = None
    """Hold out whole clusters of the pictures, of so many, until the test has its share."""
    validation_share: float = 0.0
    """Share of the training stimuli for validation."""
    half: bool = False
    """Store responses in float16."""
    train_stimuli: int = 1000
    """Of a simulation."""
    test_count: int = 200
    """Of a simulation: test stimuli."""
    showings: int = 3
    """Of a simulation: trials of each stimulus."""
    voxel_count: int = 2000
    """Of a simulation."""
    seed: int = 0
    """Of the split and of simulations."""
    overwrite: bool = False
    """Replace an existing subject folder."""
    dry_run: bool = False
    """Read headers and tables, print sizes and memory, write nothing."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a source or an option that cannot be used, or the folder exists.
        """
        self._check()
        if self.layout.startswith("simulate-"):
            self._simulate()
            return
        from radiata_decode.experiment.layouts import open_layout
        from radiata_decode.experiment.trial_plan import trial_plan

        reading = open_layout(self)
        plan = trial_plan(self, reading)
        for line in (*_lines(reading, self.half), *plan.lines):
            print(line)
        if self.dry_run:
            print(f"dry run: {self.out} was not written")
            return
        from radiata_core.runs import sole_writer

        with sole_writer(self.out):
            self._write(reading, plan)

    def _check(self) -> None:
        if self.layout not in LAYOUTS:
            raise InputError(f"expected a layout of {', '.join(LAYOUTS)}; got {self.layout}. Name it first.")
        known = {*_ALL, *LAYOUTS[self.layout]}
        given = [f.name for f in fields(self) if f.name not in known and getattr(self, f.name) != f.default]
        if given:
            raise InputError(
                f"expected options of {self.layout}; got --{given[0].replace('_', '-')}, which it does not "
                "read. Leave it out."
            )
        if self.out.exists() and not self.overwrite and not self.dry_run:
            raise InputError(
                f"expected a new folder; got {self.out}, which exists. Choose another --out, or pass --overwrite."
            )
        if self.source is None and self.layout in (
            "from-nsd",
            "from-bids",
            "from-cifti",
            "from-surface",
            "from-arrays",
        ):
            raise InputError(f"expected a folder or file after {self.layout}; got none. Name it there.")
        if self.source is not None and self.layout.startswith("simulate-"):
            raise InputError(f"expected no source of {self.layout}; got {self.source}. Leave it out.")

    def _simulate(self) -> None:
        from radiata_decode.experiment.simulating import write_simulated_subject

        kind = "image" if self.layout == "simulate-images" else "motion"
        if not self.subject.isdecimal() or int(self.subject) < 1:
            raise InputError(f"expected --subject as the number of a person, 1 or more; got {self.subject}.")
        films = _films(self.films)
        trials = (self.train_stimuli + self.test_count) * self.showings
        size = 4 * trials * self.voxel_count / 2**20
        print(f"simulated {kind} subject: {trials} trials × {self.voxel_count} voxels, {size:.3g} MiB")
        if self.dry_run:
            print(f"dry run: {self.out} was not written")
            return
        from radiata_core.runs import sole_writer

        with sole_writer(self.out):
            write_simulated_subject(
                self.out, kind=kind, train=self.train_stimuli, test=self.test_count, repeats=self.showings,
                voxels=self.voxel_count, subject=int(self.subject) - 1, seed=self.seed, films=films,
                overwrite=self.overwrite,
            )  # fmt: skip
        print(f"simulated subject in {self.out}")

    def _write(self, reading: "Reading", plan: "TrialPlan") -> None:
        from radiata_core.runs import Progress
        from radiata_decode.data.subject import SubjectWriter

        stimuli = self._stimuli(reading, plan)
        options = asdict(self) | {"overwrite": None, "out": None, "dry_run": None, "files": _stamps(reading)}
        dtype = "float16" if self.half else "float32"
        writer = SubjectWriter(self.out, options, dtype=dtype, overwrite=self.overwrite)
        parts = [(part, kept, trials) for part, kept, trials in plan.parts(reading) if len(trials)]
        done = set(writer.done)
        try:
            with Progress(len(parts), "reading", unit="part", start=len(done)) as bar:
                for part, kept, trials in parts:
                    if part.name in done:
                        continue
                    writer.append(part.name, part.read()[kept], trials)
                    bar.update()
            subject = writer.finish(_voxels(reading), self._manifest(reading, plan), stimuli)
        except InputError:
            if not writer.done:  # nothing to go on from
                writer.discard()
            raise
        masked = subject.manifest["masked_voxels"]["not_finite"]
        if masked:
            print(f"{masked} voxels were masked: NaN or infinite in some trial")
        print(f"{len(subject.trials)} trials × {len(subject.voxels)} voxels in {self.out}")

    def _stimuli(self, reading: "Reading", plan: "TrialPlan") -> "StimulusArrays | None":
        if reading.stimuli is None:
            return None
        found = reading.stimuli(plan.stimuli)
        if found is None:
            print("no stimuli: the layout's file of pictures is not there")
        elif plan.groups is not None:
            found.table["group"] = [plan.groups[name] for name in found.table["stimulus"]]
        return found

    def _manifest(self, reading: "Reading", plan: "TrialPlan") -> dict[str, Any]:
        from radiata_core.runs import progress, provenance, sha256

        files = sorted({*reading.files, *(path for part in reading.parts for path in part.files)})
        return {
            "source": str(self.source.name if self.source else "example"),
            "layout": self.layout,
            "zscore": "none: as measured; training standardises, with statistics of training trials alone",
            **reading.about,
            "split_rule": plan.rule,
            "trials_left_out": plan.left_out,
            "Sources": {_short(path): sha256(path) for path in progress(files, "checksums")},
            "options": asdict(self) | {"out": None, "source": None},
            **provenance(),
        }


def _short(path: Path) -> str:
    """The last three names of a path: enough to tell files apart, without a machine's own folders."""
    return "/".join(path.parts[-3:])


def _stamps(reading: "Reading") -> list[list[Any]]:
    """What would change if a file were another one."""
    files = {*reading.files, *(path for part in reading.parts for path in part.files)}
    return [[_short(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(files)]


def _voxels(reading: "Reading") -> Any:
    from radiata_decode.model.noise_ceiling import noise_ceiling

    if "ncsnr" not in reading.voxels or "noise_ceiling" in reading.voxels:
        return reading.voxels
    return reading.voxels.assign(noise_ceiling=noise_ceiling(reading.voxels["ncsnr"].to_numpy(float)))


def _lines(reading: "Reading", half: bool) -> list[str]:
    trials = sum(len(part.trials) for part in reading.parts)
    rois = [name for name in reading.voxels.columns if str(name).startswith("roi_")]
    size = (2 if half else 4) * trials * len(reading.voxels) / 2**20
    return [
        f"{len(reading.parts)} parts, {trials} trials, {len(reading.voxels)} voxels, {len(rois)} regions",
        f"responses.h5 {size:.3g} MiB; at most {reading.memory / 2**20:.3g} MiB in memory at a time",
    ]


def _films(folder: Path | None) -> tuple[Path, ...]:
    """Film files of a folder, by name; none without a folder.

    Raises:
        InputError: no such folder, or one without films.
    """
    if folder is None:
        return ()
    found = sorted(
        p for p in folder.glob("*") if p.suffix.lower() in (".mp4", ".avi", ".mov", ".mkv", ".webm")
    )
    if not found:
        raise InputError(
            f"expected a folder with films (.mp4, .avi, .mov, .mkv, .webm); got {folder}. Check the path."
        )
    return tuple(found)
