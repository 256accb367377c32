"""From bytes to turns: sources, formats and providers. Knows no database."""
