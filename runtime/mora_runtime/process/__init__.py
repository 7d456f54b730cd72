"""The life of a process: run directory, supervision, kill points, logs, environment variables.

Owns both ends of the link between a role and its launcher. Imports no torch.
"""
