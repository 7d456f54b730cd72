"""The image environment: an agent for Stable Diffusion 3 on diffusers, and an agent that judges videos."""
