-- What lists of bad things say, one row per (list, entry): as long as the list says it, and
-- for some time after.
CREATE TABLE indicators (
    list       VARCHAR   NOT NULL,
    entry      VARCHAR   NOT NULL,              -- evil.example; 203.0.113.9; 203.0.113.9:443; 203.0.113.0/24
    kind       VARCHAR   NOT NULL,              -- name, address, network
    value      VARCHAR   NOT NULL,              -- without the port
    port       USMALLINT,
    domain     VARCHAR,                         -- of a name: registrable domain, or the name itself
    page       VARCHAR,                         -- it was the address of this page
    threat     VARCHAR,
    reference  VARCHAR,
    first_seen TIMESTAMP,                       -- as the list says
    expires    TIMESTAMP,
    added      TIMESTAMP NOT NULL,              -- when it was read here
    gone       TIMESTAMP                        -- since when the list no longer has it
);

CREATE TABLE indicator_lists (                  -- one row per list
    list       VARCHAR   NOT NULL,
    origin     VARCHAR   NOT NULL,
    licence    VARCHAR   NOT NULL,
    score      DOUBLE    NOT NULL,
    content    UBIGINT   NOT NULL,              -- tells its text from others
    hunted     TIMESTAMP                        -- history was searched for what was added until then
);
