"""`mora bench train`, key `equal_stages`: a chain of three agents that need the same time, each in its own process.

`server` has the agents. The work of each is a fixed wall time that needs no core, as the kernels of a GPU are, because
three busy processes cannot run at once on two cores. `measurement` compares the time of a step with its critical path.
"""
