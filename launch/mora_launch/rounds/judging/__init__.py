"""Judges of candidates: measured, local models, endpoints; criteria and rankings."""
