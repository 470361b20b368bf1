"""The active-learning campaign: configuration, event loop, resume."""
