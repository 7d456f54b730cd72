"""Files that processes exchange, and files that strangers wrote.

Owns writes that are whole or absent, shards, bounded reads, and the display of foreign text.
"""
