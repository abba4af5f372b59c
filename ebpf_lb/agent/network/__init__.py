"""The node's interfaces and addresses: what each is to us, and our programs on it."""
