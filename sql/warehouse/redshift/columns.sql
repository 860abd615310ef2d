-- schema, table, name, type, nullable: the columns of the table $2 in the schema $1, in their order
SELECT
  table_schema::varchar,
  table_name::varchar,
  column_name::varchar,
  CASE
    WHEN data_type = 'numeric' AND numeric_precision IS NOT NULL
      THEN 'numeric(' || numeric_precision::varchar || ',' || coalesce(numeric_scale, 0)::varchar || ')'
    WHEN data_type LIKE 'character%' AND character_maximum_length IS NOT NULL
      THEN data_type || '(' || character_maximum_length::varchar || ')'
    ELSE data_type
  END::varchar AS data_type,
  (lower(is_nullable::varchar) <> 'no') AS nullable
FROM pg_catalog.svv_columns
WHERE table_catalog = current_database()
  AND table_schema = $1::varchar
  AND table_name = $2::varchar
ORDER BY ordinal_position
