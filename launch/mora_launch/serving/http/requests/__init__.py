"""What clients send: bodies, form fields, JSON, uploads, each with its limits."""
