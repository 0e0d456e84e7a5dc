"""Labelled radiographs: manifests, adapters of public sets, readers, sampling."""
