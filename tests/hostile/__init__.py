"""Hostile requests over sockets, and what the system makes of them: `make hostile`, or `python -m tests.hostile`.

An attack is a function that says what it does, what is expected and how much it may send; `catalogue.py` collects them.
It may import the test helpers of `everturn.testing` and nothing else of the source: it sees what a stranger sees.
"""
