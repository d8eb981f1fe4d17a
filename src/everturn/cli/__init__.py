"""The `everturn` command: `main` has every verb. May import everything but `testing`; nothing may import it."""
