-- Runs that read their warehouse, and the rows that it returned, by day (UTC). ?1: slugs as a JSON list; ?2: since.
SELECT date(started_at / 1000000, 'unixepoch') AS day,
       count(*) AS runs,
       coalesce(sum(json_extract(report, '$.rows')), 0) AS rows_queried
FROM runs
WHERE model IN (SELECT value FROM json_each(?1))
  AND started_at >= ?2
  AND kind = 'sync'
GROUP BY day
ORDER BY day
