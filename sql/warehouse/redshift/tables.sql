-- name, kind: local tables and views, late-binding views, and external (Spectrum) tables of this database
SELECT
  (quote_ident(table_schema) || '.' || quote_ident(table_name))::varchar AS name,
  lower(table_type)::varchar AS kind
FROM pg_catalog.svv_tables
WHERE table_catalog = current_database()
  AND table_schema NOT IN ('pg_catalog', 'information_schema', 'pg_internal', 'pg_automv', 'catalog_history')
  AND table_schema NOT LIKE 'pg!_toast%' ESCAPE '!'
  AND table_schema NOT LIKE 'pg!_temp!_%' ESCAPE '!'
ORDER BY table_schema, table_name
