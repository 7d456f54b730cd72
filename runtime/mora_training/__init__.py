"""Training of an agent's model: the optimizer agent, ZeRO shards, moving average, adapters, process groups.

Needs DeepSpeed and peft. Used by the environments' servers and by the coordinator; imports only `mora_runtime`.
"""
