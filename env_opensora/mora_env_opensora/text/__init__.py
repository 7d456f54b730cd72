"""Captions to encoder rows: cleaning, the mT5 encoder, a cache on disk, and text dropout."""
