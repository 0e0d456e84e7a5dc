"""The results: one row an image, and the files that hold them."""
