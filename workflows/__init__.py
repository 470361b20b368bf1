"""Launchable campaigns: composition only."""
