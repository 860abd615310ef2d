-- the schemas of the current catalog, where it has no information_schema (hive_metastore)
SHOW SCHEMAS
