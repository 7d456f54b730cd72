"""The processes of a job on this machine: cores and memory, servers, coordinators, status.

Owns what is started, watched, restarted and stopped; `mora_runtime.process` does the watching.
"""
