"""The runtimes that share a data folder: their apps, topics and workflows reach one another over Unix sockets.

Given to the engine as its `Router`; it may import every other room of the runtime but `embedded` and `grpc`.
"""
