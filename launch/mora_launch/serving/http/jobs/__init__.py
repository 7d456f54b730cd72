"""Video jobs of the HTTP server: their folders, states, progress, and the slots that bound how many run."""
