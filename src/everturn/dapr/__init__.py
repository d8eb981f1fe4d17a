"""What a service gets from its Dapr sidecar: state, messages, invocation, secrets over HTTP; workflows by the SDK.

`Sidecar` is the seam between the two ways to run: `sidecar.DaprSidecar` speaks to a real sidecar over sockets,
the embedded runtime offers the same in the process. May import `settings`, `contracts` and `errors`.
"""
