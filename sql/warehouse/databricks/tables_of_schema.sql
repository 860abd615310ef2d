-- schema, name, is temporary: the tables and views of the current schema
SHOW TABLES
