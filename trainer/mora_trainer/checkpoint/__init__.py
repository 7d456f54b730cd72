"""Checkpoints of a job: who writes which shard, the manifest, the record that commits one."""
