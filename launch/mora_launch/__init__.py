"""Command line, configuration, environments and jobs of Mora.

Importing this package costs nothing: the `mora` script imports `environments.venvs` with a bare Python, before any
environment exists, so nothing here may import more than the standard library.
"""
