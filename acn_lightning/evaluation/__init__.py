"""Measures of a model and its codes."""
