-- A publisher may have several keys: while it goes over to another one, both are trusted.
-- The new table takes the pages of the old one: damage of a page that is free would not be noticed.
CREATE TEMP TABLE publishers_before AS SELECT key, name, added_ms FROM publishers;
DROP TABLE publishers;
CREATE TABLE publishers (
    key TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    added_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX publishers_by_name ON publishers (name);
INSERT INTO publishers (key, name, added_ms) SELECT key, name, added_ms FROM temp.publishers_before;
DROP TABLE temp.publishers_before;

-- All signatures of a module, in its file or pushed later, and the digests of the files that brought the
-- latter. What an earlier release took has none until the controller has looked into its file.
ALTER TABLE modules ADD COLUMN signatures BLOB;
ALTER TABLE modules ADD COLUMN resigned TEXT NOT NULL DEFAULT '[]';

-- The bytes that the memories of a module have when it starts.
ALTER TABLE modules ADD COLUMN memory_bytes INTEGER;
