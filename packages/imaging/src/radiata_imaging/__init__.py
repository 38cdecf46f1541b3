"""Everything that meets a file or an eye: volumes, pipelines, cohorts, metrics, figures, reports."""
