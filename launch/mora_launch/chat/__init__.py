"""Chat completion endpoints: their client, for judges too, and the prompt agent, which may ask one."""
