DROP TABLE import_leases;
DROP TABLE import_sources;
