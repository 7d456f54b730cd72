"""What a command needs as the only program of a container."""
