-- The first schema. Times are milliseconds since the Unix epoch; documents are JSON.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

-- People. The token itself is nowhere, only its SHA-256.
CREATE TABLE access_tokens (
    name TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE enrolment_tokens (
    hash BLOB PRIMARY KEY,
    name TEXT,
    labels TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_by TEXT
) STRICT;

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    labels TEXT NOT NULL,
    budget TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    target TEXT NOT NULL,
    enrolled_ms INTEGER NOT NULL,
    online INTEGER NOT NULL DEFAULT 0,
    last_seen_ms INTEGER
) STRICT;

-- The last status of each node, and what was counted over all of them.
CREATE TABLE statuses (
    node TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    document TEXT NOT NULL,
    missed INTEGER NOT NULL,
    clock_skew_ms INTEGER
) STRICT;

CREATE TABLE publishers (
    name TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    added_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE modules (
    digest TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    signers TEXT NOT NULL,
    imports TEXT NOT NULL,
    exports TEXT NOT NULL,
    pushed_ms INTEGER NOT NULL,
    UNIQUE (name, version)
) STRICT;

CREATE TABLE applications (
    name TEXT PRIMARY KEY,
    yaml TEXT NOT NULL,
    manifest TEXT NOT NULL,
    modules TEXT NOT NULL,
    revision INTEGER NOT NULL,
    applied_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE placements (
    application TEXT NOT NULL REFERENCES applications (name) ON DELETE CASCADE,
    microservice TEXT NOT NULL,
    node TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    PRIMARY KEY (application, microservice, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX placements_by_node ON placements (node);

-- A row outlives its node, without an envelope: should the same key enrol again, its numbers go on.
CREATE TABLE assignments (
    node TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    content_hash BLOB,
    modules TEXT NOT NULL,
    envelope BLOB
) STRICT;

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;

CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    application TEXT NOT NULL,
    microservice TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    line TEXT NOT NULL
) STRICT;
-- The relay may repeat a batch.
CREATE UNIQUE INDEX logs_once ON logs (node, sequence, time_ms);
CREATE INDEX logs_by_microservice ON logs (application, microservice, node, id);

CREATE TABLE log_usage (bytes INTEGER NOT NULL) STRICT;
INSERT INTO log_usage (bytes) VALUES (0);
CREATE TRIGGER logs_added AFTER INSERT ON logs BEGIN
    UPDATE log_usage SET bytes = bytes + length(new.line) + 100;
END;
CREATE TRIGGER logs_removed AFTER DELETE ON logs BEGIN
    UPDATE log_usage SET bytes = bytes - length(old.line) - 100;
END;
