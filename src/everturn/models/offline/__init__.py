"""The offline demo: an honest, rule-based assistant and summary, as models of the OpenAI Agents SDK like any other."""
