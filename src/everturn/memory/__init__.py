"""The agent memory service: keeps conversations and a summary of each user.

May import `models`, `web`, `dapr` and what is below them; never `chat` or `runtime`.
"""
