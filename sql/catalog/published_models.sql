-- each model once, found by stepping through the index: there may be a million publications of a thousand models
WITH RECURSIVE published (model) AS (
  SELECT min(model) FROM publications
  UNION ALL
  SELECT (SELECT min(p.model) FROM publications AS p WHERE p.model > published.model)
  FROM published
  WHERE published.model IS NOT NULL
)
SELECT model FROM published WHERE model IS NOT NULL
