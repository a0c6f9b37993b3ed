-- The highest format that anything was ever written in. Who writes a lower one can't read that, and takes no shard.
CREATE TABLE formats (
    alone   boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (alone),
    written bigint  NOT NULL CHECK (written > 0)
);

INSERT INTO formats (written) VALUES (1);

-- Raises what is written, unless somebody takes part that can't read it. Who takes shards locks the row as well, so the second
-- statement's snapshot, which is younger than the lock, has everybody who could have taken some.
CREATE FUNCTION raise_format(raised bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM formats FOR UPDATE;
    UPDATE formats SET written = raised
    WHERE written < raised AND NOT EXISTS (SELECT FROM coordinators WHERE format < raised);
END $$;
