"""Fakes and tools for tests, shipped: scripted model endpoints, the fault proxy, a clock that tests move."""
