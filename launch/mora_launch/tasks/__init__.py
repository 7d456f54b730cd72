"""The tasks as short procedures over capabilities: their list, requests, inputs and media."""
