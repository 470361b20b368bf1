"""Relaxed end states of the reference reactions, one extended XYZ file each: initial, final."""
