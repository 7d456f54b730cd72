"""Prompts of a round: from a grammar, a language model or a file, and the refusal of repetitions."""
