-- Programs that used the network, on each host: what is new there, and what was replaced.

CREATE TABLE programs (                         -- one row per (sensor, exe, sha256)
    sensor     INTEGER   NOT NULL,
    exe        VARCHAR   NOT NULL,
    family     VARCHAR   NOT NULL,              -- the file without its version: /opt/x-#/bin/x
    sha256     VARCHAR   NOT NULL,              -- '' where it is not known
    package    VARCHAR,
    signer     VARCHAR,
    first_seen TIMESTAMP NOT NULL,
    last_seen  TIMESTAMP NOT NULL
);
INSERT INTO programs
    SELECT sensor, exe, regexp_replace(exe, '[0-9]+([._-][0-9]+)*', '#', 'g'), coalesce(sha256, ''),
        any_value(package), any_value(signer), min(time), max(time)
    FROM processes WHERE exe IS NOT NULL GROUP BY ALL;
