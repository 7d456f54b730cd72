"""Calls: agents and their tables, clients, servers, gradients across the border.

The one room that may import all other rooms.
"""
