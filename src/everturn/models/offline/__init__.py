"""The offline demo: an honest, rule-based assistant and summary, as models of the OpenAI Agents SDK like any other.

`language` reads English and knows what a fact is, `model` answers. May import what `models` may.
"""
