"""The Dapr SDK's loggers, made to log like the rest of the process."""

import logging

# What the SDK creates as of dapr 1.19: each object that logs adds a StreamHandler of its own to one of these
# (dapr/ext/workflow/logger/logger.py, dapr/ext/workflow/_durabletask/internal/shared.py).
_SDK_LOGGERS = (
    "WorkflowRuntime",
    "DaprWorkflowClient",
    "DaprWorkflowContext",
    "durabletask-worker",
    "durabletask-client",
)


def tame_sdk_loggers() -> None:
    """Take the SDK's own handlers away and keep its records from WARNING on, which then go to the root's handlers.

    The SDK adds a handler with every object that it makes: call this after making a worker or a client.
    """
    for name in _SDK_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
        logger.propagate = True
