-- What is under way is asked for at every commit, whatever there was before.

CREATE INDEX runs_under_way ON runs (model) WHERE status = 'running';
CREATE INDEX uploads_under_way ON uploads (stream) WHERE status = 'running';
