"""Our metrics against VBench's own code: the same weights, clips and core (docs/evaluation.md, "Against upstream").

`upstream` runs in an environment that has VBench and nothing of Mora, `ours` in `env_vbench`'s; `material` makes the
weights and clips that both read.
"""
