"""Commands about a run: its state, its end, its checkpoints."""
