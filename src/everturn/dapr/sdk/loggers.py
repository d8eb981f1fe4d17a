"""The Dapr SDK's loggers, made to log like the rest of the process."""

import logging

# What the SDK creates as of dapr 1.19: each object that logs adds a StreamHandler of its own to one of these
# (dapr/ext/workflow/logger/logger.py, dapr/ext/workflow/_durabletask/internal/shared.py). WorkflowRuntime warns of
# every failed activity, of which the step's own log says more; the client raises what it logs as an error. The worker
# warns of each try to connect (we log `sidecar_missing`), and of results that the sidecar will ask for again.
_SDK_LOGGERS = {
    "WorkflowRuntime": logging.ERROR,
    "DaprWorkflowClient": logging.CRITICAL,
    "DaprWorkflowContext": logging.WARNING,
    "durabletask-worker": logging.ERROR,
    "durabletask-client": logging.WARNING,
}


def tame_sdk_loggers() -> None:
    """Take the SDK's own handlers away and keep only its warnings and errors, which then go to the root's handlers.

    The SDK adds a handler with every object that it makes: call this after making a worker or a client.
    """
    for name, level in _SDK_LOGGERS.items():
        logger = logging.getLogger(name)
        # Not none at all: a workflow's context adds one if it finds none (dapr/ext/workflow/logger/logger.py).
        logger.handlers[:] = [logging.NullHandler()]
        logger.setLevel(level)
        logger.propagate = True
        logger.addFilter(_is_not_raised_too)


def _is_not_raised_too(record: logging.LogRecord) -> bool:
    # WorkflowRuntime.start logs what it raises: `worker_not_started` says it, or it was stopped while it waited.
    return not str(record.msg).startswith("WorkflowRuntime worker did not start")
