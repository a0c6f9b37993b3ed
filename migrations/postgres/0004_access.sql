-- Roles of tokens, tokens and workers that were revoked, and where a command came from.

ALTER TABLE tokens DROP CONSTRAINT tokens_kind_check;
ALTER TABLE tokens ADD CHECK (kind IN ('viewer', 'submitter', 'operator', 'admin', 'join'));
-- From then on it doesn't count. Its row stays for as long as it would have counted, so that it can't be added once more.
ALTER TABLE tokens ADD COLUMN revoked_at timestamptz;

-- From then on nothing that it says is heard.
ALTER TABLE workers ADD COLUMN revoked_at timestamptz;

-- The address that a command came from; none for what didn't come over the network, and in lines of earlier versions.
ALTER TABLE audit ADD COLUMN origin text;
