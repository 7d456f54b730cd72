"""`mora data check`: what training would read of a data set, its faults, and its frames as pictures."""
