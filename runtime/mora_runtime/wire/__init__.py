"""Bytes between processes: message types, their total decoder, ZeroMQ sockets with keys, the doorbell.

Owns every format that crosses a process border. It handles descriptions of tensors, never the tensors themselves.
"""
