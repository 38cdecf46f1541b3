"""Cohorts and stores of T1 volumes."""
