"""The runs of this user: those that are alive, also beyond `runs/`, and those that have curves."""
