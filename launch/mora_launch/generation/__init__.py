"""`mora generate`: runs one task, reads its input files, writes its result files, and repeats a run."""
