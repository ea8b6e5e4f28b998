"""Turns YAML and overrides into a checked config."""
