"""Checkpoints of a finished or running job: list, verify, export, load them into models."""
