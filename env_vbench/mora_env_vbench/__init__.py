"""Metrics of videos: the networks of VBench's dimensions as agents; the server calls them through `__main__`."""
