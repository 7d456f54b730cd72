"""What comes out of results: overall values, VBench's files, the report, the paper's tables."""
