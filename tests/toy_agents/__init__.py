"""An environment of agents that load in no time, for tests of what surrounds models: `python -m tests.toy_agents`."""
