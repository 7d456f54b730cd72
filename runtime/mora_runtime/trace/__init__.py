"""What a process did and when: spans, message arrows, tensor moves, counters, and the thread that writes them down."""
