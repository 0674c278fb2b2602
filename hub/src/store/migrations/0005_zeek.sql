-- What Zeek's logs tell of connections beyond a flow: the uid that ties logs together, the
-- names said in TLS and HTTP, exact times. Kept apart from flows_done, which has no room for
-- them and whose rows are never replaced; `import zeek` writes both.

-- One row per (sensor, uid): its last record. One that is over replaces an open one, of two
-- open ones the longer stays.
CREATE TABLE zeek_conn (
    sensor    INTEGER   NOT NULL,
    uid       VARCHAR   NOT NULL,
    time      TIMESTAMP NOT NULL,               -- begin, as Zeek tells it
    proto     UTINYINT  NOT NULL,
    src       VARCHAR   NOT NULL,
    sport     USMALLINT NOT NULL,
    dst       VARCHAR   NOT NULL,
    dport     USMALLINT NOT NULL,
    service   VARCHAR,
    duration  DOUBLE    NOT NULL,               -- seconds
    bytes_out UBIGINT   NOT NULL,               -- IP bytes
    bytes_in  UBIGINT   NOT NULL,
    open      BOOLEAN   NOT NULL
);

-- Names said in a connection; one row each.
CREATE TABLE zeek_name (
    sensor INTEGER NOT NULL,
    uid    VARCHAR NOT NULL,
    name   VARCHAR NOT NULL,                    -- with the port, where HTTP's Host has one
    source VARCHAR NOT NULL                     -- tls, http, proxy (the host of a CONNECT), nohost (a request without Host; name empty);
                                                -- mime: an answer of another type than asked for; sign N: program N showed itself
);

-- How far each log has been read: written with the rows themselves.
CREATE TABLE zeek_file (                        -- one row per (sensor, log)
    sensor INTEGER NOT NULL,
    log    UBIGINT NOT NULL,                    -- hash of its kind and first record
    lines  UBIGINT NOT NULL
);
