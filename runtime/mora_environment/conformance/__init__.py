"""The conformance suite: what Mora expects of a kind of agent, checked with its tiny models on the CPU."""
