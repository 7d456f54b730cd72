"""LoRA adapters in the formats of other libraries, and on the model of a server for single calls."""
