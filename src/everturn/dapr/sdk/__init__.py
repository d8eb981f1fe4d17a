"""The private parts of the Dapr workflow SDK that we need (dapr 1.19.0, pinned in pyproject.toml): no other room names
any of them. `protocol` has its messages, `execution` runs its executor here, `worker_thread` changes its threaded
worker; it imports nothing of ours but itself. `tests/contract/test_sdk_private_names.py` says what an upgrade breaks.
"""
