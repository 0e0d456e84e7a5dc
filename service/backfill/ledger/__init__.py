"""The ledger: what has become of each image, in a database."""
