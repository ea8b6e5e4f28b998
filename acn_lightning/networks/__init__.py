"""Networks: each returns a distribution."""
