"""Tracing of one process: spans, message arrows, tensor moves, counters, and the thread that writes them to a file."""
