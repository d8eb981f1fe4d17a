"""Service invocation: a request of one app, carried to another under the rules of Resiliency files.

May import `resources`, `clock` and `errors` of the runtime.
"""
