"""The engines that work on a job: this process, or a Ray cluster."""
