"""Where work runs: Parsl machines, apps and retry policy."""
