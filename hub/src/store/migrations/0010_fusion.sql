-- One alert for all that detectors say of a device and a domain or address; what each says is
-- a part of it, from which the alert can be judged anew at any time.
CREATE TABLE alert_parts (                      -- one row per (alert, rule, subject)
    alert      BIGINT    NOT NULL,
    rule       VARCHAR   NOT NULL,
    subject    VARCHAR   NOT NULL,
    first_seen TIMESTAMP NOT NULL,
    last_seen  TIMESTAMP NOT NULL,
    findings   UBIGINT   NOT NULL,
    score      DOUBLE    NOT NULL,              -- highest of its findings
    worst      TIMESTAMP NOT NULL,              -- when that was
    why        VARCHAR   NOT NULL,              -- and what it said
    followed_at TIMESTAMP,                      -- a watched name: when the device connected
    followed    VARCHAR
);
INSERT INTO alert_parts
    SELECT id, rule, subject, first_seen, last_seen, findings, score, last_seen, why, NULL, NULL
    FROM alerts;

-- score, severity, rule, subject and why of an alert are now those of all its parts together.
-- status is open, acked, folded, allowed, fp (a false positive) or note (asked for, but not
-- connected).
ALTER TABLE alerts ADD COLUMN topic VARCHAR;            -- registrable domain or address
ALTER TABLE alerts ADD COLUMN reasons VARCHAR;          -- JSON list: how the score came about
ALTER TABLE alerts ADD COLUMN acked_score DOUBLE;       -- what a person has seen
ALTER TABLE alerts ADD COLUMN seen_by UINTEGER;         -- devices that talked to it
ALTER TABLE alerts ADD COLUMN devices UINTEGER;         -- of so many
ALTER TABLE alerts ADD COLUMN topic_since TIMESTAMP;    -- the first time anybody did
ALTER TABLE alerts ADD COLUMN learned BOOLEAN;          -- whether that is long enough to tell
UPDATE alerts SET acked_score = score WHERE status = 'acked';

-- What people say of alerts. NULL in a column of what it is about means any.
CREATE TABLE feedback (
    id      BIGINT    NOT NULL,                 -- from 1
    kind    VARCHAR   NOT NULL,                 -- allow, fp
    made    TIMESTAMP NOT NULL,
    until   TIMESTAMP,                          -- findings from then on are told again
    domain  VARCHAR,                            -- and everything below it
    net     VARCHAR,
    device  VARCHAR,                            -- MAC, or an address that has none
    rule    VARCHAR,
    subject VARCHAR,
    comment VARCHAR,
    alert   BIGINT,                             -- it was said of this one
    undone  TIMESTAMP
);

-- Incidents: what was found about one device at about the same time. Findings of alerts of
-- medium severity and above make one; it goes on as long as less than two hours lie between
-- them, and takes in what else was found within half an hour of it. Its number is that of its
-- first stored finding, so it stays when more is found; two that a late finding joins keep the
-- lower one. What is allowed, dismissed or a note makes none.
CREATE VIEW incident_findings AS
    WITH told AS (
        SELECT f.id AS finding, f.time, f.rule, f.subject, f.why, f.severity,
            a.id AS alert, t.id AS told_by, t.score, t.mac, t.client,
            coalesce(t.mac, t.client) AS device
        FROM findings f JOIN alerts a ON a.id = f.alert
            JOIN alerts t ON t.id = coalesce(a.folded_into, a.id)
        WHERE t.status IN ('open', 'acked') AND a.status IN ('open', 'acked', 'folded')
            AND coalesce(t.mac, t.client) IS NOT NULL
    ), grave AS (
        SELECT *, CASE WHEN time - lag(time) OVER own <= INTERVAL 2 HOUR THEN 0 ELSE 1 END AS opens
        FROM told WHERE score >= 0.4
        WINDOW own AS (PARTITION BY device ORDER BY time, finding)
    ), counted AS (
        SELECT *, sum(opens) OVER (PARTITION BY device ORDER BY time, finding
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS nth
        FROM grave
    ), spans AS (
        SELECT device, nth, min(finding) AS incident, min(time) AS opened, max(time) AS lasted
        FROM counted GROUP BY device, nth
    )
    SELECT s.incident, s.opened, s.lasted, t.*
    FROM told t JOIN spans s ON s.device = t.device
        AND t.time BETWEEN s.opened - INTERVAL 30 MINUTE AND s.lasted + INTERVAL 30 MINUTE;

-- One row for each. It is closed when two hours of events have come since, and acked when a
-- person has acknowledged all its grave alerts.
CREATE VIEW incidents AS
    SELECT i.incident AS id, i.device, arg_max(i.mac, i.time) AS mac,
        arg_max(i.client, i.time) AS client, any_value(i.opened) AS opened,
        any_value(i.lasted) AS last_seen,
        CASE WHEN bool_and(a.status = 'acked') FILTER (a.score >= 0.4) THEN 'acked'
             WHEN any_value(i.lasted) + INTERVAL 2 HOUR <= any_value(n.newest) THEN 'closed'
             ELSE 'open' END AS status,
        max(i.score) AS score,
        CASE WHEN max(i.score) > 0.8 THEN 'critical' WHEN max(i.score) >= 0.6 THEN 'high'
             ELSE 'medium' END AS severity,
        count(DISTINCT i.told_by) AS alerts, count(DISTINCT i.finding) AS findings,
        list_sort(list(DISTINCT i.rule)) AS rules,
        arg_max(a.why, a.score) AS why
    FROM incident_findings i JOIN alerts a ON a.id = i.told_by,
        (SELECT greatest((SELECT max(time) FROM dns_hot), (SELECT max(time) FROM flows_done),
            (SELECT max(time) FROM findings)) AS newest) n
    GROUP BY i.incident, i.device;
