"""Workflows of shell commands and functions, from a file: what they are, how they are read and checked."""
