"""Reading of requests: bodies, form fields, JSON and uploads, each within its limits."""
