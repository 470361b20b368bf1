"""Samplers: dynamics and path searches driven by a calculator."""
