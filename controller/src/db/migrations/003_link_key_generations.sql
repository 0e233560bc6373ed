-- How often the site had the node make another key for its links.
ALTER TABLE nodes ADD COLUMN link_key_generation INTEGER NOT NULL DEFAULT 0;
