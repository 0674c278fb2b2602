-- Questions to language models: each one with its answer, so that it can be asked again.

CREATE SEQUENCE llm_call;
CREATE TABLE llm_calls (
    id         BIGINT    NOT NULL,              -- of llm_call
    time       TIMESTAMP NOT NULL,
    tier       UTINYINT  NOT NULL,              -- 1 or 2
    endpoint   VARCHAR   NOT NULL,
    model      VARCHAR   NOT NULL,              -- as asked for
    answered   VARCHAR   NOT NULL,              -- as the endpoint calls it
    prompt     UINTEGER  NOT NULL,              -- version of the words and the schema
    request    VARCHAR   NOT NULL,              -- JSON, without the key
    response   VARCHAR   NOT NULL,
    cases      UINTEGER  NOT NULL,
    latency_ms UBIGINT   NOT NULL,
    read       UBIGINT   NOT NULL,              -- tokens, those from the cache included
    cached     UBIGINT   NOT NULL,
    written    UBIGINT   NOT NULL,
    micro_usd  UBIGINT   NOT NULL,
    outcome    VARCHAR   NOT NULL               -- ok, or why nothing of it was used
);

-- What they said of alerts: advice. Nothing reads it to make an alert smaller.
CREATE TABLE llm_opinions (
    time       TIMESTAMP NOT NULL,
    alert      BIGINT    NOT NULL,
    tier       UTINYINT  NOT NULL,
    call       BIGINT,                          -- NULL: an earlier opinion about the same
    digest     VARCHAR   NOT NULL,              -- of subject, facts, model and prompt
    verdict    VARCHAR   NOT NULL,              -- benign, suspicious, malicious, unknown
    category   VARCHAR   NOT NULL,
    confidence VARCHAR   NOT NULL,
    facts      VARCHAR   NOT NULL,              -- what it rests on: f1 f2
    note       VARCHAR   NOT NULL,              -- the model's words; nobody vouches for them
    advice     VARCHAR   NOT NULL,              -- note, probably-benign, raised
    expires    TIMESTAMP NOT NULL
);
