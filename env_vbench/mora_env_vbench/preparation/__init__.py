"""From decoded frames to what the networks take: sizes, padding, normalisation, and the choice of frames."""
