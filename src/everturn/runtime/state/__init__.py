"""Dapr's state API: what a store must do, SQLite as the one behind it, and what an app sees of a store.

May import `resources`, `database`, `clock` and `errors` of the runtime.
"""
