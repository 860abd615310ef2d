-- name (as in tables.sql), number of columns
SELECT
  (quote_ident(table_schema) || '.' || quote_ident(table_name))::varchar AS name,
  count(*)::bigint AS columns
FROM pg_catalog.svv_columns
WHERE table_catalog = current_database()
GROUP BY table_schema, table_name
