"""`mora generate`: one task from the command line, its input and result files, and its repetition."""
