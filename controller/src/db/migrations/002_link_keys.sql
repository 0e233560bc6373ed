-- The node's key for links, once it has told it.
ALTER TABLE nodes ADD COLUMN link_key TEXT;
