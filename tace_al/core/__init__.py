"""Errors, units, hashing, labels, files and random generators: no torch, no ase."""
