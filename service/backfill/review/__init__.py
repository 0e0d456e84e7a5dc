"""The review of a job: what persons decide about the images that the model doubts."""
