"""The published study, whole: nine candidates, one chosen, assessed, and its report."""
