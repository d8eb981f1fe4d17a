"""What the HTTP APIs of both services share: who calls, problem details, limits, ids in paths, health and metrics.

May import `dapr`, `settings`, `logs`, `tracing`, `proxies`, `contracts` and `errors`; knows nothing of chats, memories
or models.
"""
