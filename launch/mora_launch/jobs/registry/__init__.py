"""Which runs of this user exist beyond those in `runs/`."""
