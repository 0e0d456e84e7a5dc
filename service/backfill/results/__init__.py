"""The results: one row for each image, and the files that hold the rows."""
