"""The Dapr SDK's loggers, made to log like the rest of the process."""

import logging

# What the SDK creates as of dapr 1.19: each object that logs adds a StreamHandler of its own to one of these
# (dapr/ext/workflow/logger/logger.py, dapr/ext/workflow/_durabletask/internal/shared.py). WorkflowRuntime warns of
# every failed activity, which the step's own log tells better; what the client tells as an error it raises as well.
_SDK_LOGGERS = {
    "WorkflowRuntime": logging.ERROR,
    "DaprWorkflowClient": logging.CRITICAL,
    "DaprWorkflowContext": logging.WARNING,
    "durabletask-worker": logging.WARNING,
    "durabletask-client": logging.WARNING,
}


def tame_sdk_loggers() -> None:
    """Take the SDK's own handlers away and keep only its warnings and errors, which then go to the root's handlers.

    The SDK adds a handler with every object that it makes: call this after making a worker or a client.
    """
    for name, level in _SDK_LOGGERS.items():
        logger = logging.getLogger(name)
        # Not none at all: a workflow's context adds one where it finds none (dapr/ext/workflow/logger/logger.py).
        logger.handlers[:] = [logging.NullHandler()]
        logger.setLevel(level)
        logger.propagate = True
