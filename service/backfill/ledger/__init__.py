"""The ledger: the outcome of each image, in a database."""
