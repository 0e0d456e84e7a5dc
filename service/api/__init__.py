"""HTTP around the core: routes, limits, problems, metrics, settings."""
