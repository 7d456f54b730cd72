"""SEINE: clips that begin with given frames, or lead from one picture to another. docs/seine.md describes it.

`models`, `diffusion`, `masks`, `given_frames` and `errors` need only torch.
"""
