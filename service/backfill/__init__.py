"""Archives: every image once, whatever happens."""
