"""An environment whose kinds are each wrong in one way."""
