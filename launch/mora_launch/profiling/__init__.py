"""`mora profile`: runs a traced job, merges the roles' traces into one, and analyses where the time goes."""
