"""Image agents of Mora: Stable Diffusion 3 through diffusers, in its own environment."""
