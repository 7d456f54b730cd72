"""Video jobs of the HTTP server: their folders, states and progress, and the limit on how many run."""
