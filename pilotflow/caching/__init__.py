"""Memoization: results of apps with `cache=True` are kept, and found again by what was called with what."""
