-- schema, name, kind: what this login can see in the current catalog
SELECT table_schema, table_name, table_type
FROM information_schema.tables
WHERE table_catalog = current_catalog() AND table_schema <> 'information_schema'
ORDER BY table_schema, table_name
-- an inline result may hold 25 MiB
LIMIT 10000
