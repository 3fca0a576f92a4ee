"""The commands for this machine; nothing in functions/ depends on them."""
