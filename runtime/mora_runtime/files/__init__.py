"""Files that processes exchange, and files from untrusted sources.

Owns atomic writes, shards, bounded reads, and the display of untrusted text.
"""
