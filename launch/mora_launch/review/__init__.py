"""Review of a task's stages by a person: a state machine on disk, used from the terminal and from the web page."""
