"""The page that a person opens: static files without a build step, which the API serves at `/`."""
