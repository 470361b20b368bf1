"""Engines that make frames (sampling) and labels (labelling)."""
