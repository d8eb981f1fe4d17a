"""What the two services share and what their clients see: messages, events and the fields in them.

Pure; may import `errors` only.
"""
