"""The one client of chat completion endpoints: prompt agents and judges that run elsewhere."""
