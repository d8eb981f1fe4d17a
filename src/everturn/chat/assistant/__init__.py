"""The assistant: an agent of the OpenAI Agents SDK, its prompt and its tools.

It may import `models` and the shapes of the chat service; it knows nothing of workflows.
"""
