"""The chain of agents over servers: losses and gradients in pipeline order, and generation without gradient."""
