"""The whole system on one machine; nothing in functions/ knows of it."""
