"""The report of a profile: JSON summary, HTML page with pictures of the lanes, terminal output."""
