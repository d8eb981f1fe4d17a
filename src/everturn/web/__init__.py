"""What the HTTP APIs of both services share: problem details, limits, health, metrics. `app.build_app` joins them."""
