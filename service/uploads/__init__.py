"""Uploads: multipart forms, archives, and the byte budget of all bodies in memory."""
