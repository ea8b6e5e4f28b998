"""What a model and its codes are worth."""
