"""What the image agents cost: the real renderers, run on the meta device at the sizes of the options."""
