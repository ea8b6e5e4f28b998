"""Stored codes and their neighbours."""
