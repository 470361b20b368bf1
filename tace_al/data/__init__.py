"""Structures on disk and in batches: extended XYZ, frame files, neighbour lists, graphs."""
