"""Measures Everturn: `make bench`. What each figure means is in docs/reference/benchmarks.md."""
