"""Scores as pure functions of features, flows and frames."""
