"""Reading of requests: bodies, form fields, JSON, uploads, each within its limits."""
