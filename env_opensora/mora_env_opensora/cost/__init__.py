"""What the video agent costs: the real objective and sampler, run on the meta device at the sizes of the options."""
