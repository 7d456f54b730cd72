"""Autograd graphs between a forward and a backward call: their memory, and the order of the backward.

Owns the tickets of one server.
"""
