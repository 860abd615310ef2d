-- The full, quoted name of the table that a query would mean by $1; null when there is none
SELECT (
  SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.oid = to_regclass($1::text) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
)
