"""Video agents of Mora: a clean implementation of Open-Sora-Plan v1.2 and the server that hosts it.

`models`, `checkpoint`, `conditioning` and `objective` need torch and safetensors alone, so that the mathematics can be
run and compared in any environment; the rest needs this environment's pins.
"""
