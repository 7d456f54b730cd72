"""The tensor store: sealed segments of shared memory, slots, references, leases.

Owns the bytes of all shared tensors, and converts tensors to and from message values.
"""
