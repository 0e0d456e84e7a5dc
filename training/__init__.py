"""Everything with torch: manifest, split, augmentation, network, fit, cutoff, test, publish."""
