"""`./mora evaluate` and `./mora tables`: metrics of videos, measured by agents, stored as they are made."""
