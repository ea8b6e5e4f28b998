"""Measured ratios: what this framework does against what a person would write without it.

    python -m benchmarks [NAME ...] [--json FILE]

Run from the root of a checkout. Every figure compares two ways that are timed by turns in the same
run, so that it means something on a noisy machine and on another one; `references.py` holds the
other ways. Where a target is an upper limit (`<=`) the ratio is ours / reference; where it is a
lower one (`>=`), reference / ours.
"""
