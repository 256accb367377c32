"""Broken captures for every reader: `python -m tests.fuzz` tries them for as long as is asked."""
