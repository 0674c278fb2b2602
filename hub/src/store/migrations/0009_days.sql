-- Older days of dns, flows and firewall are files (store/days). What readers see by these
-- names is a view over both; the program makes it anew whenever the list of files changes.

ALTER TABLE dns RENAME TO dns_hot;
CREATE VIEW dns AS FROM dns_hot;

ALTER TABLE firewall RENAME TO firewall_hot;
CREATE VIEW firewall AS FROM firewall_hot;

DROP VIEW flows;
CREATE VIEW flows_hot AS
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
CREATE VIEW flows AS FROM flows_hot;

CREATE TABLE parts (                            -- one row per file
    tab      VARCHAR   NOT NULL,                -- the view it belongs to
    day      DATE      NOT NULL,                -- UTC, of time
    number   UINTEGER  NOT NULL,                -- days/<tab>/day=<day>/part-<number>.parquet
    rows     UBIGINT   NOT NULL,
    bytes    UBIGINT   NOT NULL,
    hash     UBIGINT   NOT NULL,                -- xxh3-64 of the file
    modified BIGINT    NOT NULL,                -- nanoseconds; as long as it stays, so has the content
    schema   BIGINT    NOT NULL,                -- version in which it was written: its columns
    broken   VARCHAR,                           -- why it is left out
    gone     TIMESTAMP                          -- no longer listed; the file is deleted soon
);
