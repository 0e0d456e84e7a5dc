"""DICOM as a network: objects arrive, results leave."""
