-- A run may be paused by somebody, whom `held` names. Its items that are ready wait in a lane of its own, `held/RUN`, that nobody claims.
ALTER TABLE runs ADD COLUMN held TEXT;
