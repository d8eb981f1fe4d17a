"""Language models: OpenAI-compatible endpoints and the offline demo, as models of the OpenAI Agents SDK.

May import `dapr`, `settings`, `proxies`, `contracts` and `errors`; `chat` and `memory` import it.
"""
