-- The highest format that anything was ever written in. Who writes a lower one can't read that, and takes no shard.
CREATE TABLE formats (
    alone   INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (alone = 1),
    written INTEGER NOT NULL CHECK (written > 0)
) STRICT;

INSERT INTO formats (written) VALUES (1);

ALTER TABLE coordinators ADD COLUMN format INTEGER NOT NULL DEFAULT 1;
