"""Clients that others wrote, as they are, against a running system."""
