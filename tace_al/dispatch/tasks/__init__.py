"""What workers can do: one module a task, each with `run(payload, folder) -> plain dict`."""
