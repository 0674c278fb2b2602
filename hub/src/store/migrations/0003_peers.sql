-- Where flows went: an address, and the name by which the client had resolved it. Both
-- texts are long, belong together and come again and again; a row of flows_done that says
-- a number instead is a sixth smaller and quicker to write. A pair may be here more than
-- once (the writer remembers the latest ones only); each number is there once.
CREATE TABLE peers (
    id   UINTEGER NOT NULL,
    dst  VARCHAR  NOT NULL,
    name VARCHAR                                -- NULL: no answer explained the address
);
INSERT INTO peers
    SELECT row_number() OVER (ORDER BY dst, name), dst, name
    FROM (SELECT DISTINCT dst, name FROM flows_done);

DROP VIEW flows;
ALTER TABLE flows_done RENAME TO flows_done_2;
CREATE TABLE flows_done (
    time        TIMESTAMP NOT NULL,             -- of the record: end, or last update
    sensor      INTEGER   NOT NULL,
    proto       UTINYINT  NOT NULL,
    src         VARCHAR   NOT NULL,
    sport       USMALLINT NOT NULL,
    peer        UINTEGER  NOT NULL,             -- peers.id
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
    name_age_ms UBIGINT,
    sensor_time TIMESTAMP
);
INSERT INTO flows_done BY NAME
    SELECT f.* EXCLUDE (dst, name), p.id AS peer
    FROM flows_done_2 f JOIN peers p ON p.dst = f.dst AND p.name IS NOT DISTINCT FROM f.name
    ORDER BY f.time;
DROP TABLE flows_done_2;

-- Finished and open flows alike, one row each.
CREATE VIEW flows AS
    SELECT time, sensor, proto, src, sport, dst, dport, nat_src,
        CASE WHEN nat_src IS NOT NULL THEN coalesce(nat_sport, sport) END AS nat_sport,
        nat_dst,
        CASE WHEN nat_dst IS NOT NULL THEN coalesce(nat_dport, dport) END AS nat_dport,
        start::TIMESTAMP AS start, duration_ms, bytes_out, bytes_in, packets_out, packets_in,
        tcp_state, replied, offloaded, iface, mac, name, name_age_ms, sensor_time, open
    FROM (
        SELECT f.*, p.dst, p.name, false AS open
            FROM flows_done f JOIN peers p ON p.id = f.peer
        UNION ALL BY NAME
        SELECT * EXCLUDE (id, epoch, received), true AS open FROM flows_open
    );
