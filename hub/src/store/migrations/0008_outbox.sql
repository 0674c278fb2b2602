-- What has to be told to whom: written with the alert, taken away when it was told.

CREATE SEQUENCE outbox_row;
CREATE TABLE outbox (
    id       BIGINT    NOT NULL,                -- of outbox_row; never used again
    target   VARCHAR   NOT NULL,                -- its name in the configuration
    alert    BIGINT    NOT NULL,
    reason   VARCHAR   NOT NULL,                -- new, again
    severity VARCHAR   NOT NULL,                -- of the alert at that time
    queued   TIMESTAMP NOT NULL,
    attempts UINTEGER  NOT NULL,
    error    VARCHAR                            -- of the last attempt
);

-- What became of it.
CREATE TABLE deliveries (
    id       BIGINT    NOT NULL,                -- of the outbox row
    target   VARCHAR   NOT NULL,
    alert    BIGINT    NOT NULL,
    reason   VARCHAR   NOT NULL,
    queued   TIMESTAMP NOT NULL,
    settled  TIMESTAMP NOT NULL,
    outcome  VARCHAR   NOT NULL,                -- sent, unneeded, refused, expired
    attempts UINTEGER  NOT NULL,
    error    VARCHAR                            -- of the last attempt in vain
);
