"""`mora bench train`, key `mlp`: two halves of a multilayer perceptron, each in a process, trained jointly.

`stages` is what is trained, the same for everybody. `ours` and each of `trainers` train it; all are given turns by
`measurement`, which compares times and, to the bit, weights. `report` judges them.
"""
