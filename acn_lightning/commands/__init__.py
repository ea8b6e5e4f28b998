"""The `acn` commands."""
