"""Dapr's pub/sub API: a broker that keeps messages in the runtime's database until every subscriber has taken them.

May import `invocation` (the apps), `resources`, `database`, `clock` and `errors` of the runtime.
"""
