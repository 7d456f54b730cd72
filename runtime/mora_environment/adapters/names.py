"""Names around LoRA adapters: in the files of the formats in which they travel, and in a server. Needs no torch."""

from __future__ import annotations

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers' `load_lora_weights` looks for
DIFFUSERS_METADATA = "lora_adapter_metadata"  # key in the file's header from which diffusers reads alpha
PEFT_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."  # of tensors: peft's `PeftModel` has the model there
ADAPTERS = "adapters"  # the agent of a server that puts adapters on its model for single calls
