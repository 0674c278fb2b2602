//! `sensor-silent`: a sensor that says nothing, comes late, or loses what it saw.
//!
//! In: what sensors reported last, and gaps of the last hours. Out: findings whose subject is
//! the sensor, about no client. What nobody sees, nobody can judge: an attacker's first step is
//! to blind (ATT&CK T1562), a full disk's and an unplugged router's effect is the same.
//!
//! Judged by the hub's clock: silence brings no events. Sensors that were revoked, and such as
//! were only imported from, owe nothing.

use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};

use super::place;
use super::weigh::Weighed;
use super::{FINDINGS_MAX, SCORE_MIN};
use crate::store::StoreError;

/// As in findings.
pub(crate) const RULE: &str = "sensor-silent";
/// A sensor sends its health every half minute.
const SILENT: Duration = Duration::from_secs(600);
/// It reports, but stores no event for so long.
const IDLE: Duration = Duration::from_secs(3_600);
/// Events that wait at the sensor.
const PENDING_MANY: u64 = 50_000;
/// Clocks further apart make wrong times.
const SKEW: Duration = Duration::from_secs(60);

/// What is known of one sensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) name: String,
    /// How long it has said nothing.
    pub(crate) silent: Duration,
    /// How long no event of it was stored; `None`: it never sent any.
    pub(crate) idle: Option<Duration>,
    pub(crate) pending: u64,
    pub(crate) skew: Duration,
    /// Spans of the last hour it could not see, and events lost in them.
    pub(crate) gaps: u64,
    pub(crate) lost: u64,
    /// Collectors that are not well, as they say.
    pub(crate) trouble: String,
}

/// What is wrong with it, the gravest first.
pub(crate) fn wrong(state: &State) -> Option<(Weighed, String)> {
    let name = &state.name;
    let span = |d: Duration| place::seconds(d.as_secs());
    if state.silent >= SILENT {
        let grave = state.silent >= Duration::from_secs(3_600);
        let weighed = Weighed::new(0.5).when(grave, 0.1, "for more than an hour");
        return Some((
            weighed,
            format!("sensor {name} has been silent for {}", span(state.silent)),
        ));
    }
    let idle = state.idle.unwrap_or_default();
    let weighed = Weighed::new(0.0)
        .when(idle >= IDLE, 0.45, "it reports, but no event of it has come for an hour")
        .when(state.lost > 0, 0.4, "it lost events")
        .when(state.lost == 0 && state.gaps > 0, 0.25, "it could not see for a while")
        .when(state.pending >= PENDING_MANY, 0.3, "many events wait there")
        .when(state.skew >= SKEW, 0.3, "its clock is wrong")
        .when(!state.trouble.is_empty(), 0.2, "a collector of it is not well");
    let first = weighed.because.first()?.clone();
    let weighed = Weighed { score: weighed.score.min(0.6), because: weighed.because };
    (weighed.score() >= SCORE_MIN).then(|| {
        let because = weighed.because.iter().skip(1).cloned().collect();
        (Weighed { because, ..weighed }, format!("sensor {name}: {first}"))
    })
}

/// Findings at `now`, by the hub's clock.
pub(crate) fn run(db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
    let sql = format!(
        "SELECT s.name, epoch_us(s.last_seen), epoch_us(s.last_sent), coalesce(s.pending, 0),
             (SELECT epoch_us(max(c.updated)) FROM ingest_cursor c WHERE c.sensor = s.id),
             (SELECT count(*) FROM gaps g WHERE g.sensor = s.id AND g.time > make_timestamp($1)
                AND g.collector <> 'watch'),
             (SELECT coalesce(sum(g.lost), 0)::UBIGINT FROM gaps g
                 WHERE g.sensor = s.id AND g.time > make_timestamp($1)),
             (SELECT string_agg(c.name || ': ' || c.state, '; ' ORDER BY c.name)
                 FROM sensor_collectors c
                 WHERE c.sensor = s.id AND NOT regexp_matches(c.state, '^(ok|done)\\b'))
         FROM sensors s
         WHERE s.token_hash IS NOT NULL AND s.revoked_at IS NULL AND s.last_seen IS NOT NULL
         ORDER BY s.name LIMIT {FINDINGS_MAX}"
    );
    let mut statement = db.prepare(&sql)?;
    let hour_ago = now.minus(Duration::from_secs(3_600)).micros();
    let mut rows = statement.query(params![hour_ago])?;
    let mut findings = Vec::new();
    while let Some(row) = rows.next()? {
        let time = |us: Option<i64>| us.map(Timestamp::from_micros);
        let (seen, sent): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
        let seen = time(seen).unwrap_or(now);
        let state = State {
            name: row.get(0)?,
            silent: now.since(seen),
            skew: time(sent).map_or(Duration::ZERO, |sent| sent.distance(seen)),
            pending: row.get(3)?,
            idle: time(row.get(4)?).map(|updated| now.since(updated)),
            gaps: row.get(5)?,
            lost: row.get(6)?,
            trouble: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
        };
        findings.extend(wrong(&state).map(|(weighed, what)| told(&state, &weighed, &what)));
    }
    Ok(findings)
}

fn told(state: &State, weighed: &Weighed, what: &str) -> Finding {
    let finding = Finding {
        rule: RULE.to_owned(),
        subject: format!("sensor {}", state.name),
        client: None,
        mac: None,
        score: weighed.score(),
        why: weighed.why(what),
        evidence: Vec::new(),
    };
    let finding = finding
        .with("sensor", &state.name)
        .with("silent_s", state.silent.as_secs())
        .with("waiting", state.pending)
        .with("clock_off_s", state.skew.as_secs())
        .with("gaps_last_hour", state.gaps)
        .with("lost_last_hour", state.lost)
        .with("benign_if", "it was switched off, or its network is down, and you know it");
    if state.trouble.is_empty() { finding } else { finding.with("collectors", &state.trouble) }
}
