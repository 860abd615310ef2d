-- schema, table, number of columns: of what tables.sql lists
SELECT table_schema, table_name, COUNT(*) AS column_count
FROM information_schema.columns
WHERE table_catalog = current_catalog() AND table_schema <> 'information_schema'
GROUP BY table_schema, table_name
ORDER BY table_schema, table_name
LIMIT 10000
