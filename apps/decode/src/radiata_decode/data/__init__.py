"""Files and signals: subjects, stimuli, betas, surfaces, and a simulated cortex."""
