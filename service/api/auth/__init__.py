"""Who may ask for what, and for how much of it."""
