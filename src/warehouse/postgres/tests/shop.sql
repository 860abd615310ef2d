CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE SCHEMA sales;
CREATE TYPE tier AS ENUM ('gold', 'silver', 'bronze');
CREATE TYPE address AS (street text, number int);
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE DOMAIN price AS numeric(10, 2);
CREATE TABLE customers (
  id int PRIMARY KEY, email email NOT NULL, tier tier, ltv price, tags text[], profile jsonb, photo bytea,
  born date, seen timestamptz, address address, balance numeric
);
INSERT INTO customers (id, email, tier, ltv)
SELECT i, 'user_' || i || '@example.com', 'gold', i * 1.5 FROM generate_series(1, 10) AS i;
CREATE TABLE sales.orders (id bigint, "Total Sum" numeric(12, 2));
CREATE TABLE "Odd Name" (a int);
CREATE VIEW gold AS SELECT * FROM customers WHERE tier = 'gold';
CREATE MATERIALIZED VIEW totals AS SELECT tier, sum(ltv) AS ltv FROM customers GROUP BY tier;
CREATE TABLE secrets (a int);
CREATE TABLE writable (a int);
GRANT USAGE ON SCHEMA sales TO reader;
GRANT SELECT ON customers, gold, totals, "Odd Name", sales.orders TO reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON writable TO reader;
