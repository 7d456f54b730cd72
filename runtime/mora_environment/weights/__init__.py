"""Weights that agents load from the Hub: whether they are on this machine, fetching them, converting them.

Asking whether they are there imports neither torch nor a library of the Hub.
"""
