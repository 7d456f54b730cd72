"""Checkpoints of a job: which role writes which shard, the manifest, and the record that commits a checkpoint."""
