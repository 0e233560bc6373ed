-- The life of each microservice: what nodes store belongs to one. Another one begins when somebody has
-- deleted the microservice, or when a module of another publisher takes its name. What has no row is in
-- its first life, 0.
CREATE TABLE lives (
    application TEXT NOT NULL,
    microservice TEXT NOT NULL,
    life INTEGER NOT NULL,
    -- Whose module it is: keys, and the names under which they were trusted, as JSON.
    publishers TEXT NOT NULL,
    -- When it was taken away; null while it is there.
    gone_ms INTEGER,
    -- 1 when its data went too: the next one of its name begins another life.
    is_over INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (application, microservice)
) STRICT, WITHOUT ROWID;
CREATE INDEX lives_gone ON lives (gone_ms);

-- Nodes that have data of lives that are over, until they are told.
CREATE TABLE ended_lives (
    node TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    application TEXT NOT NULL,
    microservice TEXT NOT NULL,
    ended_ms INTEGER NOT NULL,
    PRIMARY KEY (node, application, microservice)
) STRICT, WITHOUT ROWID;
