"""The six tasks as short procedures over capabilities, with their requests, inputs and media."""
