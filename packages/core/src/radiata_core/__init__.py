"""Radiata's core: diffusion, flow matching and stochastic interpolants on seven orthogonal axes.

    import torch, radiata_core as core

    path = core.paths.LinearPath()                                                     # x_t = (1 - t) x_0 + t eps
    denoiser = core.denoisers.NetworkDenoiser(network, path, "velocity")               # any nn.Module(x, level)
    objective = core.objectives.Regression(path, core.times.LogNormalSNR())            # SD3's and EDM's law of time
    loss = objective(denoiser, x0, core.seeds.generators_of(range(len(x0)))).value     # loss.backward(), as ever
    table = core.solvers.unipc_2(core.times.LogSNRGrid()(10, path), path)              # a solver is a table of numbers
    noise = core.seeds.noise_of(core.seeds.generators_of([0, 1, 2]), x0.shape[1:])     # a seed is a sample
    samples = core.solvers.integrate(denoiser, noise, table)                           # 10 evaluations

Convention everywhere: **t = 0 is data, t = 1 is noise**; x_t = alpha_t x_0 + sigma_t eps; the velocity is u_t =
dx_t/dt; lambda = log(alpha/sigma). Inside the core every model answers one question, E[x_0 | x_t]: `denoiser(x,
t, **conditions)`, with x of shape (batch, *event), any event, and t of shape () or (batch,). Randomness comes
in by generators only. Errors that a user can make are `errors.InputError`, one line: expected, got, what to do.
docs/notation.md has the symbols, docs/README.md a page for each chapter with a figure and what was measured,
docs/verification.md the test behind each claim.

A method of the literature is one point in a product of seven axes. The chapters are these axes, then what
stands on them.

1. Path: how much signal and noise there is at t. `paths` has LinearPath (rectified flow), TrigonometricPath,
   VPPath, VEPath and `discrete_path` the DDPM schedule made continuous; `coefficients` is what a path must say.
   `change_of_path` carries a state from one path to another, `conversion.OnPath` a whole denoiser.
2. Kernel: the law of the noise. `kernels.GaussianKernel`, or `kernels.StudentTKernel` for Poisson flows (PFGM++;
   `poisson_flows` has their exact answers). `kernels.prior` draws the first state; what needs a score asks
   `kernels.require_gaussian`.
3. Coupling: which noise belongs to which data. `couplings.IndependentCoupling`;
   `optimal_transport.OptimalTransportCoupling` deals the noise of a batch out at the least distance, within equal
   conditions; `pairings` keeps or anneals the noise that a sample was made from.
4. Prediction: what a network says. `predictions.convert` is the only place where x0, noise, velocity, v, score
   and flow become each other; `denoisers.NetworkDenoiser` makes any network a denoiser, `EDMDenoiser` is Karras
   et al.'s preconditioning and `Guided` classifier-free guidance; `anchors.PooledGaussian` gives a network the
   linear part in closed form.
5. Time: `times` has the laws to train under (LogNormalSNR, Mode and CosMap of Stable Diffusion 3) and the grids
   to walk on (LogSNRGrid, KarrasGrid, LinearGrid), and `resolution_shift`; `time_weights` has each law as a
   weight, and each weight as a law.
6. Objective: `objectives.Regression(path, law, coupling, target, weight, loss)`; what distils a teacher is
   below.
7. Solver: `tables` writes DDIM, DDPM, DPM-Solver++(2M), UniPC, Adams-Bashforth and SDE-DPM-Solver++ as
   coefficients, and `solvers.integrate` is the one loop that walks them; `transitions` has the SDE of any
   diffusion in `diffusions`; `runge_kutta` has `heun`, `edm_heun` with churn, and `adaptive` (Dormand-Prince,
   each row on its own; `straight_coordinates` is the ODE in one set of coordinates for all paths, with a
   log-density or tangents carried along).
   `correctors.predictor_corrector` adds Langevin steps at each time. `finiteness` says at which step a network
   broke.

Denoisers in closed form: `analytic` (Gaussian, mixture, the data set itself; `gaussian_flow` is the exact
solution) on the spectra of `covariances`. Product code, and the oracle of the tests.

Flow maps, few steps: `flowmaps.NetworkFlowMap` jumps from t to s in one evaluation and is a denoiser where s =
t; `flowmaps.sample_flow_map` samples with it. Consistency Trajectory Models are one call,
`flowmap_objectives.ConsistencyTrajectory`, and so are `consistency.consistency_distillation` and MeanFlow,
`average_velocity.AverageVelocity`; `flowmap_terms` adds adversarial and perceptual terms. SolvedFlowMap and
GaussianFlowMap are the oracles.

Bridges between any two sets: `interpolants.Interpolant` with the tabulated schedules, learnt by
`interpolant_objectives.InterpolantRegression`, sampled both ways by one ODE and a family of diffusions in
`interpolant_samplers`, exact for mixtures in `interpolant_oracles`.

Painters: `teleportation.Teleported` skips the first steps in closed form, with the Gaussian that one pass of
`gaussian_fits.fit_gaussian` over the data gives.

Rectification: `rectification.reflow`, `rectification.rectified_diffusion` (any path) and
`rectification.annealed_reflow` (SlimFlow) train on a teacher's pairs, `phases.PhasedRectification` in segments
of time; `flow_guided.FlowGuidedDistillation` ends in one step. `straightness` measures what it changed.

Search at inference: `search.best_of_n`, `search_over_paths`, `svdd`, `code`, `smc` and `rollover_budget` spend
one `budget` on any reward of E[x_0 | x_t]; behind them `particles`, `search_trees` and `rollover`.

What was learned: `diagnostics.diagnose(denoiser, data, generators)` is one report, a `diagnosis.Diagnosis`.
Behind it `conservativity` (curl, loops, work of a score), `gauge` (fields with curl that sample exactly),
`jacobians`, `likelihood` (by the flow, exact or by Hutchinson's probes) and `intrinsic_dimension` (flow spectrum,
normal bundle, FLIPD); `energy.EnergyDenoiser` cannot have curl.

Operators: `operators.LinearOperator` is a measurement y = A x with adjoint, norm, pseudo-inverse and prox, in
closed form where it is an `operators.SpectralOperator`, else by `conjugate_gradients` (norms by `lanczos`);
`operator_algebra` composes and stacks. Families: `pointwise` (denoising, bias fields), `masking` (lesions, fields of
view, faces), `convolution`, `separable` and `downsampling` (thick slices, any factor), `fourier_sampling` of
`kspace_masks` (one coil or several), `projection`, `rigid_motion`; `measurement_noise` is Gaussian, Rician or
Poisson.

Inverse problems: `posterior.sample_posterior(denoiser, operator, y, noise_sd, times, method, generators)` with a
method of `posterior_presets` (DPS, FlowChef, FLAIR, DDNM, DDRM, DDS, DiffPIR, PiGDM, MMPS, PnP-Flow, Flower, Radiata's
`posterior_presets.relaxed_prox` for a mean and `posterior_presets.calibrated` for samples); `posterior.denoise_once`
needs one evaluation, `posterior.steer` any differentiable loss. One loop, `posterior_walk`, of `data_steps`,
`steering_steps`, `renoising` and `relaxation`; `posterior_spread` measures how far off the denoiser is,
`posterior_calibration` whether samples are; `linear_gaussian_posterior` is the oracle, `classical_restoration` (total
variation, wavelets) and `cubic_resampling` the baselines.

Restoration: `restoration.restore(models, operator, y, noise_sd, mode)` takes what was best by measurement.
`unrolled.UnrolledRestorer` is a denoiser and the prox of any operator in turn, trained by `unrolled.UnrolledRegression`
(the loss of `log_squared_error`) on `operator_families`: `image_families` and `kspace_families` of `random_operators`.
`tiling.TiledDenoiser` makes whole volumes of blocks with a halo, `planes.PlanewiseDenoiser` of slices in two or three
directions.

Labels: `joint_denoisers.JointDenoiser` diffuses an image and its labels, each with a time of its own, so that one network
draws either given the other; `multitask_elbo.MultitaskELBO` trains it. Modalities that share no grid are aggregated into one
latent (`aggregation`): `aggregated_denoisers.AggregatedDenoiser` of `shared_modalities` with their `modality_laws`, trained
by `aggregated_elbo`. `denoiser_features.DenoiserFeatures` are what a frozen denoiser holds of an image, for tasks with few
labels: `probes` read them, `feature_selection` chooses layer and noise on validation.

Guides: `noise_experts.NoiseExperts` teaches a classifier or segmenter of clean images to read noisy ones, by the additions
of `low_rank` and on samples of the prior itself (`generated_sets`), over ranges that `noise_ranges` cuts evenly in log SNR;
`noise_experts.ClassifierGuided` is the guided denoiser.

Langevin: `langevin.simulate` moves particles in a bath under any force (`baoab`, `oscillator`, with their numbers
in `oscillators`); `unadjusted_langevin` and `adjusted_langevin` have no mass.

Networks: `nets.unet` (small, any dimension), `nets.transformer` (any dimension, places in mm, windows; of `nets.patches`,
`nets.rotary` and `nets.conditioning`; `nets.transformer_cost` counts its operations), `nets.mmdit` (Stable Diffusion 3's, of
`nets.joint_attention`) and `nets.medforj` (of `nets.medforj_blocks`, `nets.doubling` and `nets.norm_silu`), whose released
weights can be read. It runs within a limit of memory: as `nets.medforj_steps`, in `nets.medforj_slabs` of
`nets.feature_maps`, with time and memory foretold by `nets.medforj_plan`; `nets.medforj_times` remembers its noise levels,
`nets.medforj_storage` keeps its maps in bfloat16 after a trial. `allocation` gives freed memory back to the system.

Additions to any network, ours, MONAI's, diffusers' or yours: `sites` names its blocks, `handles` reads and changes them
and leaves no trace. On them `routing` (channels by noise level), `attention_windows`, `finer_voxels.finer` (finer voxels of
the same field of view; for a larger one, `overlapping_windows.OverlappingDenoiser`) and `alignment` of a hidden layer with
what an encoder sees: `aligned_objective.aligned` in training, encoders by `feature_targets` and kept by `feature_cache`, or
the averaged network itself, `self_alignment`.

Coarse to fine: `refinement.refine` draws a fine grid given the coarse one, a local flow on what interpolation misses;
`refinement.Cascade` is several of them, from a coarse head to one at 1 mm.

Spikes in the place of activations: `spiking_networks.spiking` (neurons of `spiking`) and `nets.spiking`, or from quantised
networks, `spiking_conversion.convert`; `spiking_energy.synaptic_energy` is their account of energy.

Distillation of a score: `score_distillation.ScoreDistillation` is a denoiser as an annealed loss on anything that can be
rendered; `slice_distillation.volume_from_slices` makes a volume of a prior of slices and any operator, on voxels or on a
`gaussian_field.GaussianField` (`field_fits` makes one of a volume). A point estimate, never an uncertainty.

Training: `train.train(denoiser, objective, dataset, folder, options)` with the `train_options`, resumable to
the bit, from one CPU to many GPUs. Behind it `trainer`, `feeding` and `orders` (which rows, a pure function of
seed and step), `ema`, `training_log`, `training_state` and `checkpoints`; `checkpoint.save_model` and
`checkpoint.load_model` keep a model as safetensors (`weights`) and JSON (`specs`: what a file may name), never
as a pickle.

Every application: `seeds` (one generator a sample), `runs` (a run is one folder) with `files`, `sidecars`, `logs`,
`json_lines` (standard error as one JSON object a line, for `--log-json`) and `provenance`, `shipped_weights` (a model by
name, file or run), `commands` (verbs and exit codes), `signals`, `errors`, and `types`, where shapes are named. Files of
strangers: `foreign_files` (what one may declare; a parser's error as one line) and `bounded_building` (a network no larger
than its weights).

Modules are imported when they are first used: `import radiata_core` costs a command line nothing and does not
import torch.
"""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """A module of the package, imported now."""
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
