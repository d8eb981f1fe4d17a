"""The chat service: accepts messages and sees every turn through to its end."""
