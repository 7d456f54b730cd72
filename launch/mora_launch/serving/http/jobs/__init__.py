"""Video jobs of the HTTP server: their folders, states, progress, and the slots in which they work."""
