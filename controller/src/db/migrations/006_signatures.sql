-- A publisher may have several keys: while it goes over to another one, both are trusted.
CREATE TABLE publisher_keys (
    key TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    added_ms INTEGER NOT NULL
) STRICT;
INSERT INTO publisher_keys (key, name, added_ms) SELECT key, name, added_ms FROM publishers;
DROP TABLE publishers;
ALTER TABLE publisher_keys RENAME TO publishers;
CREATE INDEX publishers_by_name ON publishers (name);

-- All signatures of a module, in its file or pushed later, and the digests of the files that brought the
-- latter. What an earlier release took has none until the controller has looked into its file.
ALTER TABLE modules ADD COLUMN signatures BLOB;
ALTER TABLE modules ADD COLUMN resigned TEXT NOT NULL DEFAULT '[]';

-- The bytes that the memories of a module have when it starts.
ALTER TABLE modules ADD COLUMN memory_bytes INTEGER;
