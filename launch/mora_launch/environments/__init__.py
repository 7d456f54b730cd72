"""The virtual environments: build them, ask them about options, make their tiny models."""
