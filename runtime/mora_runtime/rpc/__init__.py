"""Calls: agents and their tables, clients, servers, gradients across the border.

The only room that knows all the others.
"""
