"""Turns a config into a run."""
