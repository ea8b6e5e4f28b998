"""What is made of a trained model."""
