"""What must be done again and again, since no event asks for it."""
