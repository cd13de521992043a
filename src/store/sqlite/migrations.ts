/**
 * Forward-only: migration n takes the schema from version n-1 to n, in one transaction with `user_version`. A released
 * one is never changed. A new one comes with a fixture of its version (`scripts/fixture-db.ts`). STRICT tables, so that a wrong type fails at the write and not at a later read.
 */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

  CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY,
    name TEXT,
    engine TEXT NOT NULL,
    phase TEXT NOT NULL,
    desired TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    deleted_at INTEGER,
    version INTEGER NOT NULL,
    doc TEXT NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX sandboxes_name ON sandboxes (name) WHERE name IS NOT NULL AND deleted_at IS NULL;
  CREATE INDEX sandboxes_created ON sandboxes (created_at DESC, id);
  CREATE INDEX sandboxes_expires ON sandboxes (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
  CREATE INDEX sandboxes_deleted ON sandboxes (deleted_at) WHERE deleted_at IS NOT NULL;

  CREATE TABLE mounts (sandbox TEXT NOT NULL, volume TEXT NOT NULL, PRIMARY KEY (sandbox, volume)) STRICT, WITHOUT ROWID;
  CREATE INDEX mounts_volume ON mounts (volume);

  CREATE TABLE metadata (
    sandbox TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (sandbox, key)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX metadata_pair ON metadata (key, value);

  CREATE TABLE volumes (
    uid TEXT PRIMARY KEY,
    engine TEXT NOT NULL,
    kind TEXT NOT NULL,
    claim TEXT NOT NULL,
    physical_name TEXT NOT NULL,
    owner TEXT,
    managed INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    version INTEGER NOT NULL,
    doc TEXT NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX volumes_claim ON volumes (engine, claim) WHERE kind = 'claim' AND state != 'removed';
  CREATE UNIQUE INDEX volumes_physical ON volumes (engine, physical_name) WHERE state != 'removed';
  CREATE INDEX volumes_named ON volumes (engine, physical_name);
  CREATE INDEX volumes_owner ON volumes (owner) WHERE owner IS NOT NULL;
  CREATE INDEX volumes_created ON volumes (created_at DESC, uid);

  CREATE TABLE journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    engine TEXT NOT NULL,
    step TEXT NOT NULL,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    tried_at INTEGER NOT NULL,
    deadline_at INTEGER NOT NULL,
    closed_at INTEGER,
    outcome TEXT
  ) STRICT;
  CREATE INDEX journal_open ON journal (key, id) WHERE state = 'open';
  CREATE INDEX journal_key ON journal (key, id);
  CREATE INDEX journal_closed ON journal (closed_at) WHERE state != 'open';

  CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX events_subject ON events (subject, id, seq);
  CREATE INDEX events_at ON events (at);

  CREATE TABLE tombstones (
    uid TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, engine TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (uid, kind, engine, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX tombstones_name ON tombstones (engine, kind, name);

  CREATE TABLE quarantine (
    engine TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    engine_id TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (engine, kind, name)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    request_hash TEXT NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX idempotency_at ON idempotency (at);

  CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL, created_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
]
