"""Storms: real training jobs whose processes are killed, compared with an undisturbed job."""
