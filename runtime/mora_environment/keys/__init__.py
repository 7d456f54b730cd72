"""What the options of a kind, and all other settings, mean: their keys in words, for people."""
