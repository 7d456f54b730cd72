"""The six tasks as short procedures over capabilities, and what they need around them."""
