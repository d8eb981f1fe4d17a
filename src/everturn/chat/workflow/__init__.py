"""A turn as a durable workflow: its steps and their order, how they are retried, how events are delivered later.

It may import what ends a turn, the queue and the journal; nothing of the chat service's HTTP side.
"""
