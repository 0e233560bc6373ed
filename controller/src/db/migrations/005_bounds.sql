-- Whole numbers end at 2^53 - 1. A node could claim a larger one before; what came of it counts on
-- from 2^52, and a "no limit" of 2^64 - 1 bytes is written as the largest number.
UPDATE assignments SET number = 4503599627370496, content_hash = NULL, modules = '[]', envelope = NULL
    WHERE number > 9007199254740991;
UPDATE nodes SET link_key_generation = 4503599627370496 WHERE link_key_generation > 9007199254740991;
UPDATE nodes SET budget = replace(budget, '"18446744073709551615B"', '"9007199254740991B"');
UPDATE statuses SET document = replace(document, '"18446744073709551615B"', '"9007199254740991B"');
DELETE FROM statuses WHERE EXISTS
    (SELECT 1 FROM json_tree(document) WHERE type IN ('integer', 'real') AND abs(atom) > 9007199254740991);
UPDATE statuses SET missed = 9007199254740991 WHERE missed > 9007199254740991;

-- Events of nodes (1) and those of people (0) have a quota each. What an earlier release recorded of
-- nodes is told by its kind.
ALTER TABLE events ADD COLUMN origin INTEGER NOT NULL DEFAULT 0;
UPDATE events SET origin = 1 WHERE kind IN (
    'node_online', 'node_offline', 'assignment_refused', 'microservice_running', 'microservice_restarted',
    'microservice_back_off', 'microservice_refused', 'microservice_failed', 'microservice_unplaced',
    'assignment_too_large', 'backlog_full', 'backlog_dropped', 'flash_budget_exceeded', 'link_key_changed');
CREATE INDEX events_by_origin ON events (origin, id);
CREATE TABLE event_usage (origin INTEGER PRIMARY KEY, events INTEGER NOT NULL) STRICT;
INSERT INTO event_usage (origin, events)
    SELECT origins.column1, (SELECT count(*) FROM events WHERE origin = origins.column1) FROM (VALUES (0), (1)) AS origins;
CREATE TRIGGER events_added AFTER INSERT ON events BEGIN
    UPDATE event_usage SET events = events + 1 WHERE origin = new.origin;
END;
CREATE TRIGGER events_removed AFTER DELETE ON events BEGIN
    UPDATE event_usage SET events = events - 1 WHERE origin = old.origin;
END;

-- The bytes of each node's lines: when all lines together take too much, the node with the most pays.
CREATE TABLE log_usage_by_node (node TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO log_usage_by_node (node, bytes) SELECT node, sum(length(line) + 100) FROM logs GROUP BY node;
CREATE INDEX log_usage_by_bytes ON log_usage_by_node (bytes);
CREATE INDEX logs_by_node ON logs (node, id);
CREATE TRIGGER logs_added_by_node AFTER INSERT ON logs BEGIN
    INSERT OR IGNORE INTO log_usage_by_node (node, bytes) VALUES (new.node, 0);
    UPDATE log_usage_by_node SET bytes = bytes + length(new.line) + 100 WHERE node = new.node;
END;
CREATE TRIGGER logs_removed_by_node AFTER DELETE ON logs BEGIN
    UPDATE log_usage_by_node SET bytes = bytes - length(old.line) - 100 WHERE node = old.node;
    DELETE FROM log_usage_by_node WHERE node = old.node AND bytes <= 0;
END;

-- Placements that ended: their microservices still log what they said last.
CREATE TABLE ended_placements (
    node TEXT NOT NULL,
    application TEXT NOT NULL,
    microservice TEXT NOT NULL,
    ended_s INTEGER NOT NULL,
    PRIMARY KEY (node, application, microservice)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER placements_ended AFTER DELETE ON placements BEGIN
    INSERT INTO ended_placements (node, application, microservice, ended_s)
        VALUES (old.node, old.application, old.microservice, unixepoch())
        ON CONFLICT (node, application, microservice) DO UPDATE SET ended_s = excluded.ended_s;
    DELETE FROM ended_placements WHERE ended_s < unixepoch() - 86400;
END;

-- When the certificates that the site issued end, in milliseconds since the Unix epoch: that of a relay
-- which a node runs, and the last one that was handed out for a broker.
ALTER TABLE relays ADD COLUMN certificate_until_ms INTEGER;
ALTER TABLE relays ADD COLUMN issued_until_ms INTEGER;
