-- What agents on hosts tell: programs, and which connection belongs to which.

-- A row each time a program is told of: running already, begun, become another, ended.
CREATE TABLE processes (
    time      TIMESTAMP NOT NULL,
    sensor    INTEGER   NOT NULL,
    phase     VARCHAR   NOT NULL,               -- running, start, exec, exit
    process   UBIGINT   NOT NULL,               -- names it among all of its sensor
    parent    UBIGINT,
    host      VARCHAR   NOT NULL,
    os        VARCHAR   NOT NULL,               -- linux, macos, windows
    pid       UINTEGER  NOT NULL,
    name      VARCHAR   NOT NULL,
    exe       VARCHAR,
    deleted   BOOLEAN   NOT NULL,               -- the file is gone or was replaced
    sha256    VARCHAR,
    argv      VARCHAR[],                        -- without secrets
    user_name VARCHAR,
    signer    VARCHAR,
    package   VARCHAR,
    start     TIMESTAMP,
    container VARCHAR,
    ancestors VARCHAR   NOT NULL,               -- JSON list, nearest first
    sensor_time TIMESTAMP
);

-- A connection as its host sees it: src began it, dst was reached; src and sport are what a
-- router sees before it translates addresses. More than one row while it lasts.
CREATE TABLE process_conns (
    time      TIMESTAMP NOT NULL,
    sensor    INTEGER   NOT NULL,
    id        UBIGINT   NOT NULL,               -- names it among all of its sensor
    open      BOOLEAN   NOT NULL,
    process   UBIGINT,                          -- NULL: nobody was found
    pid       UINTEGER,
    name      VARCHAR,                          -- the program's
    direction VARCHAR   NOT NULL,               -- out: src is the host; in: dst is; listen
    proto     UTINYINT  NOT NULL,
    src       VARCHAR   NOT NULL,
    sport     USMALLINT NOT NULL,
    dst       VARCHAR   NOT NULL,
    dport     USMALLINT NOT NULL,
    start     TIMESTAMP,
    duration_ms UBIGINT,
    bytes_out UBIGINT,                          -- src to dst
    bytes_in  UBIGINT,                          -- dst to src
    user_name VARCHAR,
    container VARCHAR,
    how       VARCHAR   NOT NULL,               -- how the owner was found
    domain    VARCHAR,                          -- the name the host had resolved
    sensor_time TIMESTAMP
);

-- One row for each connection: its newest.
CREATE VIEW connections AS
    SELECT * FROM process_conns
    QUALIFY row_number() OVER (PARTITION BY sensor, id ORDER BY time DESC, open) = 1;
