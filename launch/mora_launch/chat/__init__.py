"""The client of chat completion endpoints, for prompt agents and judges that run elsewhere."""
