"""The embedded, Dapr-compatible runtime: workflows, state, pub/sub, invocation, secrets over one SQLite file."""
