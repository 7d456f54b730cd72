"""Measurements that the README and RESULTS.md quote; each module runs as `python -m benchmarks.NAME`."""
