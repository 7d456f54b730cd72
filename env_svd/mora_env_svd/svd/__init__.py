"""Stable Video Diffusion: a picture becomes a clip, by its CLIP embedding and its latents. Its text is z alone."""
