"""Device memory shared between processes: CUDA IPC, pools with inter-process events, pinned staging.

The tensor store does not use it yet.
"""
