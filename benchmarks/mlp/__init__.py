"""`mora bench train`, key `mlp`: two halves of a multilayer perceptron, each in a process, trained jointly.

`stages` is what is trained, the same for everybody. Each of `trainers` trains it in a process of its own (`trainer`);
`measurement` gives them turns and compares times and weights, ours to the bit. `report` judges them.
"""
