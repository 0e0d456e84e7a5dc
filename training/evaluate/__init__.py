"""What a network's PFIs are worth: metrics, cutoffs, calibration, baselines."""
