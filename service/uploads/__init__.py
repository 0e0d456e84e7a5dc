"""What a request's body holds: forms, archives, and how many bytes of it may be in memory."""
