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
