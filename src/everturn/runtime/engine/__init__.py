"""The workflow engine, pure: fold a history to a state, decide what follows from a worker's answer."""
