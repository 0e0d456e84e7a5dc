"""Everything with torch: manifest, split, augmentation, network, fit, cutoff, test, publish."""

import service  # noqa: F401  # before ONNX Runtime, which it silences
