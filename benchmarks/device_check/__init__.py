"""The check of a new GPU node: `python3 -m benchmarks.device_check` runs its parts, each in a process of its own."""
