"""`mora bench train`, key `mlp`: two halves of a multilayer perceptron, each in its own process, trained jointly.

`stages` are trained, the same for all contestants. Each of `trainers` trains them in its own process (`trainer`);
`measurement` gives them turns and compares times and weights, Mora's bit for bit. `report` compares with the targets.
"""
