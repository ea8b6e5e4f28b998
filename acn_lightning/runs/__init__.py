"""Reads the folders of runs, lists and compares them, and writes pages about them. No torch."""
