-- What must be known to say how something does, and since when. Times are of the controller's clock.

-- When the last status of a node was received. Of those from before it is known that it was no later
-- than the node was last seen.
ALTER TABLE statuses ADD COLUMN received_ms INTEGER NOT NULL DEFAULT 0;
UPDATE statuses SET received_ms =
    coalesce((SELECT last_seen_ms FROM nodes WHERE nodes.id = statuses.node), 0);

-- The assignment in which an instance was last changed: what its node says rests on it only once the
-- node has applied it.
ALTER TABLE placements ADD COLUMN assignment INTEGER NOT NULL DEFAULT 0;

-- Instances that have no place. `node` is the name of the one that has no room, or empty.
CREATE TABLE unplaced (
    application TEXT NOT NULL REFERENCES applications (name) ON DELETE CASCADE,
    microservice TEXT NOT NULL,
    node TEXT NOT NULL,
    instances INTEGER NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    hint TEXT,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (application, microservice, node)
) STRICT, WITHOUT ROWID;

-- What the site has noticed of a node, beside what it reports.
CREATE TABLE observations (
    node TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (node, kind)
) STRICT, WITHOUT ROWID;
