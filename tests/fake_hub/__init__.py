"""No tests: a Hub on this machine, which speaks what a download needs of the Hub's API."""
