"""Drives the line: reads captures, stores turns, keeps accounts that add up."""
