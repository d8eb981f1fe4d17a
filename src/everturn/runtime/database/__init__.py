"""The one SQLite file of a data folder: its schema and migrations, grouped commits, reads of what is committed.

It knows nothing of what the rooms above keep in it, and imports `errors` alone.
"""
