"""Radiata's core: diffusion, flow matching and stochastic interpolants on seven orthogonal axes.

Convention everywhere: t = 0 is data, t = 1 is noise; x_t = alpha_t x_0 + sigma_t eps; velocity u_t = dx_t/dt;
log-SNR lambda = log(alpha/sigma). The canonical output of a model inside the core is the posterior mean E[x_0 | x_t].

Reading order: paths, predictions, kernels, couplings, times, denoisers, objectives, solvers, analytic; then train,
ema, seeds, checkpoint, runs, commands, which serve every application. Nothing is imported here: a command line that
only prints its help must not pay for torch.
"""
