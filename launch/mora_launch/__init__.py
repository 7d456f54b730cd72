"""Command line, configuration, environments and supervision of Mora.

Importing this package costs nothing: the `mora` script imports `mora_launch.environments` with a bare Python, before
any environment exists, so nothing here may import more than the standard library.
"""
