"""Vectors of texts from an encoder such as BERT, to compare captions."""
