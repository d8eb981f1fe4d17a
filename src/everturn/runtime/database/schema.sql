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

-- State, topics and their subscribers. Times are seconds since 1970-01-01 UTC.

-- `key` is what Dapr stores: appid||key. Values are the JSON text that the client sent.
CREATE TABLE IF NOT EXISTS state (
  id         INTEGER PRIMARY KEY,
  store      TEXT NOT NULL,
  key        TEXT NOT NULL,
  value      BLOB NOT NULL,
  etag       TEXT NOT NULL,
  expires_at REAL,
  UNIQUE (store, key)
);
CREATE INDEX IF NOT EXISTS state_expiry ON state (expires_at) WHERE expires_at IS NOT NULL;

-- A message stays while somebody has to get it, while its topic has no subscriber, and for good where it is kept
-- (a dead letter).
CREATE TABLE IF NOT EXISTS messages (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  pubsub TEXT NOT NULL,
  topic  TEXT NOT NULL,
  body   BLOB NOT NULL,
  kept   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS messages_topic ON messages (pubsub, topic);

-- Who gets what: remembered, so that a message published before an app is back waits for it.
CREATE TABLE IF NOT EXISTS subscribers (
  id     INTEGER PRIMARY KEY,
  app_id TEXT NOT NULL,
  pubsub TEXT NOT NULL,
  topic  TEXT NOT NULL,
  UNIQUE (app_id, pubsub, topic)
);

-- A message that a subscriber has not acknowledged. `attempts` counts answers other than an acknowledgement.
CREATE TABLE IF NOT EXISTS deliveries (
  message_id    INTEGER NOT NULL,
  subscriber_id INTEGER NOT NULL,
  attempts      INTEGER NOT NULL DEFAULT 0,
  due_at        REAL NOT NULL,
  PRIMARY KEY (message_id, subscriber_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (subscriber_id, due_at);
