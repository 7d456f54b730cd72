"""`mora bench ipc`: an echo of y = x + 1 between two processes, by Mora, by its lower bound and by other libraries.

`__main__` is the command line, `measurement` interleaves the contestants and computes medians. `ours` and `floor` (the
lower bound) run in this process. `peers` run in processes of their own (`caller`, started by `remote_peers`, given
turns by `turn_process`), and so do their echo servers. `report` makes the JSON, `verdict` compares it with the targets,
`table` and `plot` show it, `soak` is the long run.
"""
