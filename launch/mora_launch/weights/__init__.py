"""Weights on the Hub: `./mora models fetch` brings them, and nothing starts without them."""
