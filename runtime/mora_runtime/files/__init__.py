"""Files that processes hand to each other, and files that strangers wrote.

Owns: writes that are whole or absent, shards, reads with a bound, and how foreign text is shown.
"""
