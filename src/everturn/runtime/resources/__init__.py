"""What Dapr's resource files say: components, subscriptions, resiliency, configuration.

Imports nothing else of the runtime.
"""
