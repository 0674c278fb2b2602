-- What is normal: of each device (by its MAC, or by its address where none is known), and of
-- the network as a whole, who = '*'.

CREATE TABLE habits (                           -- one row per (who, kind, what)
    who        VARCHAR   NOT NULL,
    kind       VARCHAR   NOT NULL,              -- day, domain, place, port, hour
    what       VARCHAR   NOT NULL,              -- example.com; a provider or network; 443/tcp; weekday 14
    first_seen TIMESTAMP NOT NULL,
    day        INTEGER   NOT NULL,              -- newest local day it showed, since 1970-01-01
    bits       UBIGINT   NOT NULL               -- bit i: it showed i days before
);
CREATE TABLE hours (                            -- one row per (who, hour) in which anything passed
    who       VARCHAR   NOT NULL,
    hour      TIMESTAMP NOT NULL,
    up        UBIGINT   NOT NULL,               -- bytes to the internet
    down      UBIGINT   NOT NULL,
    flows     UBIGINT   NOT NULL,
    questions UBIGINT   NOT NULL,
    odd       UTINYINT  NOT NULL                -- 1: upload, 2: download was told as an anomaly
);
CREATE TABLE baseline_resets (                  -- what was before counts for nothing
    who   VARCHAR   NOT NULL,
    since TIMESTAMP NOT NULL
);
