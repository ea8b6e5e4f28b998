"""Small helpers that do not depend on images or codes."""
