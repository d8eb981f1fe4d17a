"""Both services on real Dapr, on this machine: building it (`build`), starting and ending it (`up`)."""
