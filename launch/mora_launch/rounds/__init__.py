"""Data-free rounds: prompts, candidates, judges, review, and training on the chosen candidates (docs/rounds.md)."""
