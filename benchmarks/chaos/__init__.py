"""Storms: real training jobs whose processes are killed, compared with a job that nobody disturbed."""
