"""Dapr's HTTP API over the building blocks: routes, bodies, headers and statuses; every decision is made behind it.

May import `building_blocks` and what is below it.
"""
