"""The engines that run a job: in this process, or on a Ray cluster."""
