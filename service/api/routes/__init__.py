"""The endpoints, each with the permission that it needs."""
