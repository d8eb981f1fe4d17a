"""The agent memory service: keeps conversations and a summary of each user."""
