"""`mora test`: lint, types and the tests of every environment."""
