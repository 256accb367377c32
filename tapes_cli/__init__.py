"""Import captures of LLM and agent conversations into PostgreSQL, exactly once."""
