-- The newest publication of each model up to a sequence number.
SELECT model, MAX(records_version) AS records_version
FROM publications
WHERE seq <= ?1
GROUP BY model
