"""`mora profile`: a traced job, its roles' files merged into one trace, and what the trace says about the time."""
