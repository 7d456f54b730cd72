"""The life of a server: it answers before its models are loaded, drains, and ends."""
