"""The command line: parses options, calls one function, renders what it returns."""
