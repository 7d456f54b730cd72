"""`mora bench ipc`: an echo of y = x + 1 between two processes, by Mora, by the floor and by other ways.

`__main__` is the command line, `measurement` interleaves the contestants and gathers medians, `ours` and `floor` are
measured in this process, each of `peers` in a process of its own (`caller`, driven by `remote_peers`) with its echo
server as one more (`turn_process`). `report` makes the JSON, `verdict` judges it, `table` and `plot` show it, `soak` is
the long run.
"""
