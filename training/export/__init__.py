"""From a trained run to a published model version, and from one version to another."""
