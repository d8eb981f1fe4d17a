"""The pure half of the workflow engine: histories in, decisions out. No clock, no ids of its own, no IO, no await; it
imports the protocol's messages and `errors` alone.

`state.fold` reads a history, `state.accept` picks what is new of what arrived, the worker answers with actions, and
`decide.advance` says what all of it comes to: events to append, activities, timers, messages for other instances.
"""
