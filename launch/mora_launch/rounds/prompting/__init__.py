"""Prompts of a round: grammar, a language model that writes them, and which repeat each other."""
