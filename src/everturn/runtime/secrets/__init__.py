"""Dapr's secrets API: the stores, and which of their secrets an app may have.

May import `resources` and `errors` of the runtime.
"""
