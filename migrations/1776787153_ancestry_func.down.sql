DROP FUNCTION IF EXISTS ancestry_chains_rows(text[], integer);
