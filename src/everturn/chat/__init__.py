"""The chat service: accepts messages and sees every turn through to its end.

It may import contracts, `dapr`, `web` and `models`; its inner layers are in pyproject.toml, `facts` at the bottom.
"""
