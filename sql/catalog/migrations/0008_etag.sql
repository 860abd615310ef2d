-- A repeated request gets the first one's ETag too: the client is to send it with its next change.

ALTER TABLE idempotency ADD COLUMN etag TEXT;
