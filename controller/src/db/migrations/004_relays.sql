-- The relays of the site. The manifest is JSON, its password sealed with the site's key; so is the
-- key of the certificate that a node shows which runs a relay.
CREATE TABLE relays (
    name TEXT PRIMARY KEY,
    manifest TEXT NOT NULL,
    password TEXT,
    certificate_pem TEXT,
    key TEXT,
    applied_ms INTEGER NOT NULL
) STRICT;
