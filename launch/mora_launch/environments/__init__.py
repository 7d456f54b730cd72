"""The virtual environments: building them, asking them to check options, having them make their tiny models."""
