"""Device memory shared between processes: CUDA IPC, pools with inter-process events, pinned staging."""
