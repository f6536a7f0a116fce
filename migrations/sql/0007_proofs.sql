-- What the log is proven with (decision 18): an RFC 6962 Merkle tree over the events in position order, and signed heads of it.
-- docs/log-proofs.md has it to the byte. All of it is about the whole log and holds no personal data: a leaf's hash tells nothing of its
-- event to whoever does not have the event, whose id alone has 74 random bits.
SET ROLE prospectus_owner;

CREATE TABLE log.seal_keys (
    key_id text PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{16}$'),
    public_key bytea NOT NULL UNIQUE CHECK (octet_length(public_key) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE log.seal_keys IS 'Public halves of all keys that ever signed heads, so that old heads can be checked after a rotation';
COMMENT ON COLUMN log.seal_keys.key_id IS 'The first 16 hexadecimal digits of the SHA-256 of the public key';
COMMENT ON COLUMN log.seal_keys.public_key IS 'Ed25519 (RFC 8032)';
COMMENT ON COLUMN log.seal_keys.created_at IS 'When a sealer first had it';

CREATE TABLE log.tree_heads (
    number bigint PRIMARY KEY CHECK (number >= 1),
    log_id uuid NOT NULL,
    epoch text NOT NULL,
    tree_size bigint NOT NULL CHECK (tree_size >= 1),
    root_hash bytea NOT NULL CHECK (octet_length(root_hash) = 32),
    signed_at timestamptz NOT NULL,
    key_id text NOT NULL REFERENCES log.seal_keys,
    signature bytea NOT NULL CHECK (octet_length(signature) = 64)
);
CREATE INDEX tree_heads_size ON log.tree_heads (tree_size, number);
COMMENT ON TABLE log.tree_heads IS 'Append-only: what the sealer has signed';
COMMENT ON COLUMN log.tree_heads.number IS '1, 2, 3, ... without a hole; two sealers that take the same one collide';
COMMENT ON COLUMN log.tree_heads.log_id IS 'Which log';
COMMENT ON COLUMN log.tree_heads.epoch IS 'Name of the epoch that the last event is of';
COMMENT ON COLUMN log.tree_heads.tree_size IS 'How many events it covers: positions 1 to this one';
COMMENT ON COLUMN log.tree_heads.root_hash IS 'Root of the tree over them';
COMMENT ON COLUMN log.tree_heads.signed_at IS 'When; part of what is signed';
COMMENT ON COLUMN log.tree_heads.key_id IS 'Which key';
COMMENT ON COLUMN log.tree_heads.signature IS 'Ed25519, over the bytes that docs/log-proofs.md describes';

CREATE TABLE log.tree_hashes (
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    first bigint NOT NULL CHECK (first >= 0),
    epoch bigint NOT NULL CHECK (epoch >= 1),
    hashes bytea NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
    PRIMARY KEY (level, first, epoch)
);
-- Hashes cannot be compressed.
ALTER TABLE log.tree_hashes ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE log.tree_hashes IS 'Append-only: hashes of complete subtrees, in runs within groups of 256, so that proofs need not read the log';
COMMENT ON COLUMN log.tree_hashes.level IS 'Each hash covers 256 to this power events: 0 is the leaves';
COMMENT ON COLUMN log.tree_hashes.first IS 'Place of the first hash in its level, counted from 0';
COMMENT ON COLUMN log.tree_hashes.epoch IS 'Number of the epoch; where positions were used again, the newest one counts';
COMMENT ON COLUMN log.tree_hashes.hashes IS '32 bytes each; a run ends at a multiple of 256 at the latest';

GRANT SELECT, INSERT ON log.seal_keys, log.tree_heads, log.tree_hashes TO prospectus_sealer;
GRANT SELECT ON log.seal_keys, log.tree_heads, log.tree_hashes TO prospectus_query, prospectus_verifier;

RESET ROLE;

-- How far standbys have flushed is not for everybody to see. The function's owner may, and tells no more than the greatest place.
DO $$
BEGIN
    IF NOT pg_has_role('prospectus_owner', 'pg_read_all_stats', 'MEMBER') THEN
        GRANT pg_read_all_stats TO prospectus_owner;
    END IF;
END
$$;
SET ROLE prospectus_owner;
CREATE FUNCTION log.standbys(OUT connected bigint, OUT flushed pg_lsn) LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*), max(r.flush_lsn) FROM pg_stat_replication AS r
    WHERE r.state IN ('streaming', 'catchup')
      -- Those who only read along can never be promoted: decoders of the log, and tools that keep it.
      AND NOT EXISTS (SELECT FROM pg_replication_slots AS s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
      AND r.application_name NOT IN ('pg_receivewal', 'pg_basebackup')
$$;
REVOKE ALL ON FUNCTION log.standbys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.standbys TO prospectus_sealer;
COMMENT ON FUNCTION log.standbys IS 'How many standbys are connected, and how far the furthest of them has flushed the write-ahead log';
RESET ROLE;
