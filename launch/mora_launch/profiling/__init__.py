"""`mora profile`: a traced job, the roles' files merged into one trace, and the analysis of where the time goes."""
