-- name, kind, number of columns: local tables and views, late-binding views, and external (Spectrum) tables of this
-- database
SELECT
  (quote_ident(t.table_schema) || '.' || quote_ident(t.table_name))::varchar AS name,
  lower(t.table_type)::varchar AS kind,
  c.columns::bigint AS columns
FROM pg_catalog.svv_tables AS t
LEFT JOIN (
  SELECT table_schema, table_name, count(*) AS columns
  FROM pg_catalog.svv_columns
  WHERE table_catalog = current_database()
  GROUP BY table_schema, table_name
) AS c ON c.table_schema = t.table_schema AND c.table_name = t.table_name
WHERE t.table_catalog = current_database()
  AND t.table_schema NOT IN ('pg_catalog', 'information_schema', 'pg_internal', 'pg_automv', 'catalog_history')
  AND t.table_schema NOT LIKE 'pg!_toast%' ESCAPE '!'
  AND t.table_schema NOT LIKE 'pg!_temp!_%' ESCAPE '!'
ORDER BY t.table_schema, t.table_name
