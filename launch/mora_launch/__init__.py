"""Command line, configuration, environments and jobs of Mora.

Importing this package costs nothing: the `mora` script imports `environments.venvs` with a bare Python, before any
environment exists, so this package may import nothing but the standard library.
"""
