"""Bytes between processes: message types, their total decoder, ZeroMQ sockets with keys, the doorbell.

Owns every format that crosses a process border. Knows what a tensor's description looks like, and no tensor.
"""
