"""The vocabulary: pure data and pure functions, no input or output."""
