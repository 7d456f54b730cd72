"""The life of a process and its files: run directory, supervision, kill points, logs, files of strangers.

Owns what ties a role to its launcher, on both ends, and every way in which files are read and written. Starts without
torch.
"""
