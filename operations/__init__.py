"""The commands for the deployed stack; nothing in functions/ depends on them."""
