-- Base schema. Times are UTC TIMESTAMP (microseconds); addresses, MACs and names are
-- canonical printable text (dictionary-compressed by DuckDB). No indexes: on the large
-- tables every question has a time range and zone maps answer it; the small ones are
-- scanned. The one writer keeps keys unique, so no constraint has to (and a log without
-- index entries replays faster after a crash).
--
-- `time` is on the hub's clock. Where a sensor's clock was wrong (a router boots in 1970
-- until NTP sets it) the row is kept, `time` is corrected and `sensor_time` holds what
-- the sensor had said; otherwise `sensor_time` is NULL.

CREATE TABLE sensors (
    id          INTEGER   NOT NULL,
    name        VARCHAR   NOT NULL,
    token_hash  VARCHAR,                        -- hex SHA-256 of the bearer token; NULL: local source
    enrolled_at TIMESTAMP NOT NULL,
    revoked_at  TIMESTAMP,
    last_seen   TIMESTAMP,
    last_sent   TIMESTAMP,                      -- the sensor's own clock at last_seen
    address     VARCHAR,                        -- it last connected from
    version     VARCHAR,
    pending     UBIGINT,
    ring_bytes  UBIGINT
);

-- How far each life (epoch) of a sensor's ring has been stored: written in the same
-- transaction as the events, so that a replayed batch changes nothing.
CREATE TABLE ingest_cursor (                    -- one row per (sensor, epoch)
    sensor  INTEGER   NOT NULL,
    epoch   UBIGINT   NOT NULL,
    seq     UBIGINT   NOT NULL,                 -- last sequence number stored
    events  UBIGINT   NOT NULL,                 -- events stored, or folded into a row that stands
    bad     UBIGINT   NOT NULL,                 -- events that could not be read; reasons: hub_counters
    updated TIMESTAMP NOT NULL
);

-- Latest value of each counter and collector state a sensor reported.
CREATE TABLE sensor_counters (                  -- one row per (sensor, name)
    sensor  INTEGER NOT NULL,
    name    VARCHAR NOT NULL,
    value   UBIGINT NOT NULL
);
CREATE TABLE sensor_collectors (                -- one row per (sensor, name)
    sensor  INTEGER NOT NULL,
    name    VARCHAR NOT NULL,
    state   VARCHAR NOT NULL
);

CREATE TABLE dns (
    time       TIMESTAMP NOT NULL,
    sensor     INTEGER   NOT NULL,
    client     VARCHAR   NOT NULL,
    mac        VARCHAR,
    name       VARCHAR   NOT NULL,
    domain     VARCHAR   NOT NULL,              -- registrable domain, or the name itself
    qtype      USMALLINT NOT NULL,
    status     VARCHAR   NOT NULL,
    rcode      USMALLINT,
    answers    VARCHAR[],
    ttl        UINTEGER,
    upstream   VARCHAR,
    latency_us UINTEGER,
    blocked_by VARCHAR,
    source     VARCHAR   NOT NULL,
    sensor_time TIMESTAMP
);

-- Finished flows, one row each.
CREATE TABLE flows_done (
    time        TIMESTAMP NOT NULL,             -- of the record: end, or last update
    sensor      INTEGER   NOT NULL,
    proto       UTINYINT  NOT NULL,
    src         VARCHAR   NOT NULL,
    sport       USMALLINT NOT NULL,
    dst         VARCHAR   NOT NULL,
    dport       USMALLINT NOT NULL,
    nat_src     VARCHAR,
    nat_sport   USMALLINT,                      -- NULL beside a nat_src: port unchanged
    nat_dst     VARCHAR,
    nat_dport   USMALLINT,                      -- NULL beside a nat_dst: port unchanged
    start       TIMESTAMP_MS,                   -- milliseconds: a byte less per row than TIMESTAMP
    duration_ms UBIGINT,
    bytes_out   UBIGINT,
    bytes_in    UBIGINT,
    packets_out UBIGINT,
    packets_in  UBIGINT,
    tcp_state   VARCHAR,
    replied     BOOLEAN   NOT NULL,
    offloaded   BOOLEAN   NOT NULL,
    iface       VARCHAR,
    mac         VARCHAR,
    name        VARCHAR,                        -- by which src had resolved dst
    name_age_ms UBIGINT,
    sensor_time TIMESTAMP
);

-- Flows still open: the columns above, and what finds the row again. Replaced by every
-- update, moved to flows_done by the end. The id is not kept there: it is a hash that
-- nothing asks for once the flow is over, and 8 bytes that do not compress.
CREATE TABLE flows_open AS FROM flows_done LIMIT 0;
ALTER TABLE flows_open ADD COLUMN id UBIGINT;
ALTER TABLE flows_open ADD COLUMN epoch UBIGINT;
ALTER TABLE flows_open ADD COLUMN received TIMESTAMP;   -- hub's clock

CREATE TABLE firewall (
    time      TIMESTAMP NOT NULL,
    sensor    INTEGER   NOT NULL,
    verdict   VARCHAR   NOT NULL,
    prefix    VARCHAR   NOT NULL,
    proto     UTINYINT  NOT NULL,
    src       VARCHAR   NOT NULL,
    sport     USMALLINT NOT NULL,
    dst       VARCHAR   NOT NULL,
    dport     USMALLINT NOT NULL,
    in_iface  VARCHAR,
    out_iface VARCHAR,
    mac       VARCHAR,
    bytes     UINTEGER  NOT NULL,
    sensor_time TIMESTAMP
);

CREATE TABLE devices (                          -- one row per mac
    mac        VARCHAR   NOT NULL,
    hostname   VARCHAR,                         -- last name heard
    iface      VARCHAR,
    first_seen TIMESTAMP NOT NULL,
    last_seen  TIMESTAMP NOT NULL
);
CREATE TABLE device_addresses (                 -- one row per (mac, ip)
    mac        VARCHAR   NOT NULL,
    ip         VARCHAR   NOT NULL,
    first_seen TIMESTAMP NOT NULL,
    last_seen  TIMESTAMP NOT NULL
);

CREATE TABLE gaps (
    time      TIMESTAMP NOT NULL,               -- end of the span
    sensor    INTEGER   NOT NULL,
    collector VARCHAR   NOT NULL,
    since     TIMESTAMP NOT NULL,               -- begin of the span
    reason    VARCHAR   NOT NULL,
    lost      UBIGINT
);

CREATE TABLE findings (
    id       BIGINT    NOT NULL,                -- from 1, in the order of arrival
    time     TIMESTAMP NOT NULL,
    sensor   INTEGER   NOT NULL,
    rule     VARCHAR   NOT NULL,
    subject  VARCHAR   NOT NULL,
    client   VARCHAR,
    mac      VARCHAR,
    score    DOUBLE    NOT NULL,
    severity VARCHAR   NOT NULL,
    why      VARCHAR   NOT NULL,
    evidence VARCHAR   NOT NULL,                -- JSON object, printable
    alert    BIGINT    NOT NULL,                -- the alert it was fused into
    sensor_time TIMESTAMP
);

-- What a person is told: findings of one rule, subject and device (or lone client) fused.
CREATE TABLE alerts (
    id         BIGINT    NOT NULL,              -- from 1
    dedup_key  VARCHAR   NOT NULL,              -- rule|device or client|subject
    rule       VARCHAR   NOT NULL,
    subject    VARCHAR   NOT NULL,
    client     VARCHAR,
    mac        VARCHAR,
    first_seen TIMESTAMP NOT NULL,
    last_seen  TIMESTAMP NOT NULL,
    findings   UBIGINT   NOT NULL,
    score      DOUBLE    NOT NULL,              -- highest of its findings
    severity   VARCHAR   NOT NULL,
    why        VARCHAR   NOT NULL,              -- of the highest-scored finding
    status     VARCHAR   NOT NULL,              -- open, acked
    acked_at   TIMESTAMP,
    ack_note   VARCHAR
);

-- Losses at the hub itself, by reason; written with the batch that showed them.
CREATE TABLE hub_counters (
    name  VARCHAR NOT NULL,
    value UBIGINT NOT NULL
);

-- The hub's own facts that commands need without a running hub: `url`.
CREATE TABLE hub_facts (
    name  VARCHAR NOT NULL,
    value VARCHAR NOT NULL
);

CREATE VIEW flows AS
    SELECT * REPLACE (
        start::TIMESTAMP AS start,
        CASE WHEN nat_src IS NOT NULL THEN coalesce(nat_sport, sport) END AS nat_sport,
        CASE WHEN nat_dst IS NOT NULL THEN coalesce(nat_dport, dport) END AS nat_dport)
    FROM (
        SELECT *, false AS open FROM flows_done
        UNION ALL BY NAME
        SELECT * EXCLUDE (id, epoch, received), true AS open FROM flows_open
    );

-- One row per (device or lone address): the newest name an address goes by.
CREATE VIEW address_names AS
    SELECT a.ip, a.mac, d.hostname, a.last_seen
    FROM device_addresses a JOIN devices d USING (mac)
    QUALIFY row_number() OVER (PARTITION BY a.ip ORDER BY a.last_seen DESC) = 1;
