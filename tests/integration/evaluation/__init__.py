"""`mora evaluate` on real servers of toy metrics."""
