"""Training: data in, the best weights and their cutoff out."""
