"""The processes of a job on this machine: cores and memory, servers, coordinators, status.

Decides which processes start, restart and stop; `mora_runtime.process` watches them.
"""
