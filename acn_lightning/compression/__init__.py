"""Lossless compression of images with a trained model."""
