"""The UNet's weights: folders of checkpoints, and upstream's `seine.pt`, which is converted once."""
