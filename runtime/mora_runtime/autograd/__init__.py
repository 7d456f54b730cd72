"""Graphs that wait between a forward and a backward call: what they keep and the order in which they are walked.

Owns the tickets of one server. Knows no process but its own.
"""
