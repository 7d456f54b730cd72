"""Video agents of Mora: a clean implementation of Open-Sora-Plan v1.2 and the server that hosts it.

`models`, `conditioning`, `noise_schedule` and `objective` need only torch and safetensors, so the mathematics can run
and be compared in any environment. The rest needs this environment's pinned packages.
"""
