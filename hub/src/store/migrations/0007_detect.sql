-- What the hub's own detectors have judged, and what has come since.

-- The hours of event time that hold events, and the round of detectors before which
-- something last fell into each: so that late events are judged too.
CREATE TABLE arrivals (                         -- one row per hour
    hour  TIMESTAMP NOT NULL,                   -- its begin
    round BIGINT    NOT NULL
);
INSERT INTO arrivals
    SELECT DISTINCT date_trunc('hour', time), 0 FROM (
        SELECT time FROM dns UNION ALL SELECT time FROM flows_done
        UNION ALL SELECT time FROM flows_open UNION ALL SELECT time FROM firewall);

CREATE TABLE detect_marks (                     -- one row per detector
    detector VARCHAR   NOT NULL,
    judged   TIMESTAMP NOT NULL,                -- the newest moment it judged
    round    BIGINT    NOT NULL                 -- what came up to this round is judged
);
