"""The content address of a node: projection, canonical JSON, chain. Knows no capture, no store."""
