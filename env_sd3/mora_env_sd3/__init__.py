"""The image environment: an agent for Stable Diffusion 3 through diffusers, and an agent that judges videos."""
