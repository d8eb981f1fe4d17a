"""Dapr's gRPC APIs over the building blocks and the task hub, for other Dapr programs: messages and codes only.

May import `building_blocks` and what is below it.
"""
