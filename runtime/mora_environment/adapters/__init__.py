"""Exporting the LoRA adapters of a checkpoint in the formats of other libraries."""
