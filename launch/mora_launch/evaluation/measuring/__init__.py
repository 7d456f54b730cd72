"""Measuring: servers of metric agents, decoded videos, calls, and the store of results."""
