"""The workflow engine: instances over one database, with a pure core, for workers here or behind a stream.

It imports `dapr.sdk`, `database`, `clock` and errors, nothing else of the runtime; a `Router` is given to it.
"""
