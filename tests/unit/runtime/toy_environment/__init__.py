"""An environment of one small kind of agent, for tests of `mora_environment`."""
