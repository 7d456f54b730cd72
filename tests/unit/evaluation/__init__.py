"""Tests of `mora evaluate` and `mora tables` without server processes."""
