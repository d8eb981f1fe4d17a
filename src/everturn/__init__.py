"""Everturn: a chat turn that always finishes."""

__version__ = "0.1.0"
