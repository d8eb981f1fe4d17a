"""Fakes and tools for tests, shipped: scripted model endpoints, a proxy with faults, clocks that tests move.

May import everything but `cli`.
"""
