"""Language models: OpenAI-compatible endpoints and the offline demo, as models of the OpenAI Agents SDK."""
