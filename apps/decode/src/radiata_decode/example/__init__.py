"""Real data that may be passed on, with its notice (NOTICE.md): one slice of fMRI for the demo."""
