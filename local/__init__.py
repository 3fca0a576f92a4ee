"""What a person runs on this machine; nothing in functions/ depends on it."""
