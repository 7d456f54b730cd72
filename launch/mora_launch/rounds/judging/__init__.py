"""Judges of candidate videos: measures on pixels, local models, endpoints; their criteria and rankings."""
