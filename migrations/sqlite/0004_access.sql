-- Roles of tokens, tokens and workers that were revoked, and where a command came from.

CREATE TABLE tokens_with_roles (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    kind       TEXT    NOT NULL CHECK (kind IN ('viewer', 'submitter', 'operator', 'admin', 'join')),
    name       TEXT    NOT NULL,
    digest     BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    -- From then on it doesn't count. Its row stays for as long as it would have counted, so that it can't be added once more.
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

INSERT INTO tokens_with_roles (id, kind, name, digest, created_at, expires_at)
SELECT id, kind, name, digest, created_at, expires_at FROM tokens;
DROP TABLE tokens;
ALTER TABLE tokens_with_roles RENAME TO tokens;

-- From then on nothing that it says is heard.
ALTER TABLE workers ADD COLUMN revoked_at INTEGER;

-- The address that a command came from; none for what didn't come over the network, and in lines of earlier versions.
ALTER TABLE audit ADD COLUMN origin TEXT;
