"""`mora review`: people decide the sets on which the judges disagree, in the terminal or on a page."""
