"""Tools for authors of environments: model folders in the published layouts, and the training of tiny models."""
