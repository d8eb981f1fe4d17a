-- Workflows. Times are seconds since 1970-01-01 UTC; blobs are protobuf messages of Dapr's workflow protocol.

-- One row an instance; what is not here is in its history. `propagated` is the history that its parent let it see. `key` is never used again, so that nothing that was meant
-- for an instance can reach a later one of the same id.
CREATE TABLE IF NOT EXISTS workflow_instances (
  key           INTEGER PRIMARY KEY,
  app_id        TEXT NOT NULL,
  instance_id   TEXT NOT NULL,
  name          TEXT NOT NULL,
  status        INTEGER NOT NULL,
  custom_status TEXT,
  is_child      INTEGER NOT NULL,
  created_at    REAL NOT NULL,
  completed_at  REAL,
  propagated    BLOB,
  UNIQUE (app_id, instance_id)
);
CREATE INDEX IF NOT EXISTS workflow_unfinished ON workflow_instances (key) WHERE completed_at IS NULL;

-- Append-only. One row a step: `events` is a GetInstanceHistoryResponse, `n` the number of its first event.
CREATE TABLE IF NOT EXISTS workflow_history (
  key    INTEGER NOT NULL,
  n      INTEGER NOT NULL,
  events BLOB NOT NULL,
  PRIMARY KEY (key, n)
) WITHOUT ROWID;

-- Events that arrived and are in no history yet. `execution_id` is the only execution that they are for, or null.
CREATE TABLE IF NOT EXISTS workflow_inbox (
  n            INTEGER PRIMARY KEY,
  key          INTEGER NOT NULL,
  execution_id TEXT,
  event        BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS workflow_inbox_of ON workflow_inbox (key, n);

-- Activities without an outcome. Their taskScheduled is in the history row `n`.
CREATE TABLE IF NOT EXISTS workflow_activities (
  key          INTEGER NOT NULL,
  task_id      INTEGER NOT NULL,
  n            INTEGER NOT NULL,
  app_id       TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  PRIMARY KEY (key, task_id)
) WITHOUT ROWID;

-- Timers that have not fired; timer -1 is a start at a later time.
CREATE TABLE IF NOT EXISTS workflow_timers (
  key          INTEGER NOT NULL,
  timer_id     INTEGER NOT NULL,
  fire_at      REAL NOT NULL,
  execution_id TEXT NOT NULL,
  PRIMARY KEY (key, timer_id)
) WITHOUT ROWID;
