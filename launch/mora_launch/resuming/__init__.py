"""Continuing a training run: its own configuration and data, and what may differ from them.

A run's records are never rewritten. A start that changes something writes another one next to them.
"""
