"""The person in the loop of a task: one state machine on disk, asked from the terminal and from the web page."""
