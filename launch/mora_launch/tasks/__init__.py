"""The six tasks as short procedures over abilities, and what they need around them."""
