-- For lists of runs that go on where the page before ended, and for what failed last.

CREATE INDEX runs_by_time ON runs (started_at, run_id);
CREATE INDEX runs_that_failed ON runs (model, started_at) WHERE status IN ('failed', 'interrupted');
