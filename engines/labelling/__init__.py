"""Labellers: electronic-structure codes that give energies and forces."""
