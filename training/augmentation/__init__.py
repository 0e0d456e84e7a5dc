"""Other looks of a radiograph: for training, for a student, and the paper's Figure 6."""
