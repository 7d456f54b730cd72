"""A module like one of a model library that does not fit its dependencies."""

raise RuntimeError("Failed to import a model\nbecause of the following error")
