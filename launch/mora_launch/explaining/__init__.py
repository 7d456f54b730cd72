"""The configuration explained: its keys with type, default and meaning, on the terminal and as docs/configuration.md.

The words come from the settings classes themselves, and for `agents.NAME.options` from the environments.
"""
