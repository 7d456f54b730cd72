"""Published checkpoint files: read without running what is in them, and checked against the network."""
