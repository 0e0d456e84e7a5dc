"""Other forms of a published model: the same weights, in numbers that cost less."""
