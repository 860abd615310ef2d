SELECT id, at, actor, kind, subject, verb, message, details
FROM events
WHERE (?1 IS NULL OR kind = ?1)
  AND (?2 IS NULL OR subject = ?2)
  AND (?3 IS NULL OR verb = ?3)
  AND (?4 IS NULL OR id < ?4)
ORDER BY id DESC
LIMIT ?5
