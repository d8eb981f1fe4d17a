"""The embedded, Dapr-compatible runtime: workflows, state, pub/sub, invocation, secrets over one SQLite file.

May import `dapr` and `errors`, nothing else of Everturn; each of its rooms says which of the others it may import.
"""
