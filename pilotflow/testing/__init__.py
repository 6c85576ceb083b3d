"""Conformance suites for the parts that others may write: providers, launchers, channels."""
