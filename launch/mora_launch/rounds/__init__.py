"""Data-free rounds: prompts, candidates, judges, review, training on what was chosen (docs/rounds.md)."""
