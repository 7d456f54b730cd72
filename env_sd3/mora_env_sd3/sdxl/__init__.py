"""Stable Diffusion XL: pictures from text, or from a picture and text, by a base model and an optional refiner.

docs/sdxl.md describes it.
"""
