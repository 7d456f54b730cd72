"""`mora review`: people decide the sets on which judges disagree, in the terminal or on a page."""
