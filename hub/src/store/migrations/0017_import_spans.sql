-- Imports of some times of a log only: each has a stream of its own, whose cursor says how far
-- that log has been read for them.
CREATE TABLE import_spans (                     -- one row per (sensor, epoch)
    sensor   INTEGER NOT NULL,
    log      UBIGINT NOT NULL,                  -- the epoch of the whole log
    epoch    UBIGINT NOT NULL,                  -- that of these times of it
    since_us BIGINT,
    until_us BIGINT
);
