"""The HTTP front: OpenAI's image and video endpoints, health, metrics."""
