"""The commands that measure videos: evaluate, tables."""
