"""Scans, label maps and k-space in; what a scanner did to them; synthetic scans with known truth."""
