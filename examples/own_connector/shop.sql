-- A small shop, as a SQLite database.
CREATE TABLE customers (id INTEGER PRIMARY KEY, email TEXT, name TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL, amount REAL NOT NULL, day TEXT NOT NULL);
INSERT INTO customers VALUES
  (1, 'ada@example.com', 'Ada'), (2, 'grace@example.com', 'Grace'), (3, 'linus@example.com', 'Linus'), (4, NULL, 'Nobody');
INSERT INTO orders VALUES
  (1, 1, 2799.0, '2026-03-01'), (2, 1, 49.5, '2026-04-12'), (3, 2, 129.0, '2026-05-20'), (4, 3, 12.25, '2026-06-02');
