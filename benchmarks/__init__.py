"""Measures this framework as a ratio to what a person would write without it.

    python -m benchmarks [NAME ...] [--json FILE]

Run from the root of a checkout. Each benchmark alternates between the framework and a reference
(`references.py`) in one run, so its ratio holds on a noisy machine and carries over to others. The
ratio is ours / reference if the target is an upper limit (`<=`), and reference / ours if it is a
lower one (`>=`).
"""
