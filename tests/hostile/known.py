"""The attacks that get through today: none. One that is added before its fix stands here until it is refused."""

KNOWN: frozenset[str] = frozenset()
