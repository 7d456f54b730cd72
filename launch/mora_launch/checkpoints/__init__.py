"""Checkpoints of a finished or running job, seen from outside: list, verify, export, load again."""
