"""The report: certificate and header audit, made from the results."""
