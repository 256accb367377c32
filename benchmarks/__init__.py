"""What is measured, and how: shapes of captures, the physical floor, and the import."""
