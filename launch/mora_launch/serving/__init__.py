"""Long-lived servers for `generate` and `serve`: starts and supervises them, and feeds them from one queue."""
