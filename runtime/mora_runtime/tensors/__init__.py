"""The tensor store: sealed segments of shared memory, slots, references, leases.

Owns the bytes of all tensors that processes share, and puts tensors into messages.
"""
