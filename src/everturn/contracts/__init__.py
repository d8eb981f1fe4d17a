"""What the two services share and what their clients see: models, events, ids. Pure."""
