"""A real head that may be passed on: Colin27, the mean of 27 T1-weighted scans of one man, with its notice (NOTICE.md)."""
