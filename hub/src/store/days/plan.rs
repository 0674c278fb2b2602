//! What is to become of each day: kept hot, made a file, deleted.
//!
//! In: the listed files, the days with hot rows, how much disk is used, the rules. Out: a list
//! of actions, which [`super::keep`] carries out or only shows. Pure.
//!
//! Invariants: the newest [`NEVER_EVICTED`] days stay whatever the disk budget says; the
//! oldest day goes first, with all its tables; what goes is in the list, with its rows.

use serde::{Deserialize, Serialize};

use super::roll::Hot;
use super::{Day, Part, Rolled};

/// Days that no budget deletes: today and yesterday.
const NEVER_EVICTED: u32 = 2;
/// What a hot row takes, about, in bytes (measured on flows: 24 to 40).
const HOT_ROW_BYTES: u64 = 40;

/// How long what is kept, and in how much space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Whether the running hub does it by itself; `agentmon cleanup` does it at once.
    pub automatic: bool,
    /// Full days that stay in the database beside today; older ones become files.
    pub hot_days: u32,
    /// Days of flows that are kept, by their own time; 0: all.
    pub flows_days: u32,
    /// Days of DNS exchanges that are kept; 0: all.
    pub dns_days: u32,
    /// Days of stopped packets that are kept; 0: all.
    pub firewall_days: u32,
    /// Days of findings, and of alerts after their last finding, that are kept; 0: all.
    pub findings_days: u32,
    /// Days of gaps in what was seen that are kept; 0: all.
    pub gaps_days: u32,
    /// MiB that the database and the files may take; beyond, the oldest days go first,
    /// whatever is said above. 0: no bound.
    pub disk_mib: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            automatic: true,
            hot_days: 3,
            flows_days: 400,
            dns_days: 400,
            firewall_days: 400,
            findings_days: 800,
            gaps_days: 400,
            disk_mib: 20_480,
        }
    }
}

impl Retention {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        let refuse = |key: &str, allowed: &str| Err((key.to_owned(), allowed.to_owned()));
        // A day is rolled when its late rows have come: a router may be back after hours.
        if !(1..=366).contains(&self.hot_days) {
            return refuse("hot_days", "want 1 to 366");
        }
        if self.disk_mib != 0 && !(64..=(1 << 40)).contains(&self.disk_mib) {
            return refuse("disk_mib", "want 0 or at least 64");
        }
        Ok(())
    }

    fn days_of(&self, table: &Rolled) -> u32 {
        match table.name {
            "dns" => self.dns_days,
            "flows" => self.flows_days,
            _ => self.firewall_days,
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Hot rows become a file.
    Roll,
    /// Older than the rules keep it.
    Expire,
    /// The disk budget is used up.
    Evict,
}

impl What {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Roll => "roll",
            Self::Expire => "expire",
            Self::Evict => "evict",
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) what: What,
    pub(crate) table: &'static Rolled,
    pub(crate) day: Day,
    /// The file; `None`: the hot rows of the day.
    pub(crate) number: Option<u32>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Action {
    fn part(what: What, part: &Part) -> Self {
        let &Part { table, day, number, rows, bytes, .. } = part;
        Self { what, table, day, number: Some(number), rows, bytes }
    }

    fn hot(what: What, hot: &Hot) -> Self {
        let bytes = hot.rows.saturating_mul(HOT_ROW_BYTES);
        Self { what, table: hot.table, day: hot.day, number: None, rows: hot.rows, bytes }
    }
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Files, oldest day first.
    pub(crate) parts: Vec<Part>,
    /// Days with hot rows, oldest first.
    pub(crate) hot: Vec<Hot>,
    /// Bytes in use in the database itself.
    pub(crate) database_bytes: u64,
}

/// What has become too old.
pub(crate) fn expire(state: &State, rules: &Retention, today: Day) -> Vec<Action> {
    let old = |table: &Rolled, day: Day| {
        let days = rules.days_of(table);
        days > 0 && day < today.minus(days)
    };
    let parts = state.parts.iter().filter(|p| old(p.table, p.day));
    let hot = state.hot.iter().filter(|h| old(h.table, h.day));
    parts
        .map(|p| Action::part(What::Expire, p))
        .chain(hot.map(|h| Action::hot(What::Expire, h)))
        .collect()
}

/// What has been hot for long enough, and is not `expired`.
pub(crate) fn roll(
    state: &State,
    rules: &Retention,
    expired: &[Action],
    today: Day,
) -> Vec<Action> {
    let end = today.minus(rules.hot_days);
    let goes = |hot: &Hot| {
        expired.iter().any(|a| a.number.is_none() && (a.table, a.day) == (hot.table, hot.day))
    };
    let hot = state.hot.iter().filter(|h| h.day < end && !goes(h));
    hot.map(|h| Action::hot(What::Roll, h)).collect()
}

/// What must go for the rest to fit, after `expired` has gone.
pub(crate) fn evict(
    state: &State,
    rules: &Retention,
    today: Day,
    expired: &[Action],
) -> Vec<Action> {
    let budget = rules.disk_mib.saturating_mul(1 << 20);
    if budget == 0 {
        return Vec::new();
    }
    let mut candidates: Vec<Action> = state
        .parts
        .iter()
        .map(|p| Action::part(What::Evict, p))
        .chain(state.hot.iter().map(|h| Action::hot(What::Evict, h)))
        .collect();
    let going = |a: &Action| {
        expired.iter().any(|e| (e.table, e.day, e.number) == (a.table, a.day, a.number))
    };
    let parts: u64 = state.parts.iter().map(|p| p.bytes).sum();
    let mut used = parts.saturating_add(state.database_bytes);
    used = candidates.iter().filter(|a| going(a)).fold(used, |n, a| n.saturating_sub(a.bytes));
    candidates.retain(|a| !going(a) && a.day <= today.minus(NEVER_EVICTED));
    candidates.sort_by_key(|a| a.day);
    let mut evicted: Vec<Action> = Vec::new();
    for action in candidates {
        // A day goes as a whole: half of it would look like a quiet one.
        if used <= budget && evicted.last().is_none_or(|last| last.day != action.day) {
            break;
        }
        used = used.saturating_sub(action.bytes);
        evicted.push(action);
    }
    evicted
}

#[cfg(test)]
mod tests {
    use super::super::TABLES;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn part(table: usize, day: i32, mib: u64) -> Part {
        Part {
            table: &TABLES[table],
            day: Day(day),
            number: 1,
            rows: mib * 1_000,
            bytes: mib * MIB,
            hash: 0,
            modified: 0,
            schema: 5,
            broken: None,
        }
    }

    fn hot(table: usize, day: i32, rows: u64) -> Hot {
        Hot { table: &TABLES[table], day: Day(day), rows }
    }

    fn state() -> State {
        State {
            parts: vec![part(0, 10, 5), part(1, 10, 50), part(0, 50, 5), part(1, 50, 50)],
            hot: vec![hot(0, 11, 7), hot(0, 95, 100), hot(1, 99, 1_000), hot(1, 100, 1_000)],
            database_bytes: 10 * MIB,
        }
    }

    fn told(actions: &[Action]) -> String {
        let told = |a: &Action| {
            let kind = if a.number.is_some() { "file" } else { "hot" };
            format!("{}:{}:{}:{kind}", a.what.as_str(), a.table.name, a.day.0)
        };
        actions.iter().map(told).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(rules: Retention, expected: [&str; 3]) {
        let (state, today) = (state(), Day(100));
        let expired = expire(&state, &rules, today);
        let evicted = evict(&state, &rules, today, &expired);
        let rolled = roll(&state, &rules, &expired, today);
        assert_eq!([told(&expired), told(&rolled), told(&evicted)], expected);
    }

    #[test]
    fn each_day_is_kept_rolled_or_deleted() {
        let rules = |days: u32, disk_mib: u64| Retention {
            flows_days: days,
            dns_days: days,
            disk_mib,
            ..Retention::default()
        };
        check(rules(0, 0), ["", "roll:dns:11:hot roll:dns:95:hot", ""]);
        check(
            rules(89, 0),
            ["expire:dns:10:file expire:flows:10:file", "roll:dns:11:hot roll:dns:95:hot", ""],
        );
        check(
            rules(60, 0),
            ["expire:dns:10:file expire:flows:10:file expire:dns:11:hot", "roll:dns:95:hot", ""],
        );
        // 120 MiB in use: one day goes, both tables of it; expired ones make room too.
        check(
            rules(0, 70),
            ["", "roll:dns:11:hot roll:dns:95:hot", "evict:dns:10:file evict:flows:10:file"],
        );
        check(
            rules(89, 70),
            ["expire:dns:10:file expire:flows:10:file", "roll:dns:11:hot roll:dns:95:hot", ""],
        );
        // However small: today and yesterday stay.
        check(
            Retention { disk_mib: 1, ..rules(0, 0) },
            [
                "",
                "roll:dns:11:hot roll:dns:95:hot",
                "evict:dns:10:file evict:flows:10:file evict:dns:11:hot evict:dns:50:file \
                 evict:flows:50:file evict:dns:95:hot",
            ],
        );
    }

    #[test]
    fn rules_are_checked() {
        Retention::default().validate().unwrap();
        for (rules, key) in [
            (Retention { hot_days: 0, ..Retention::default() }, "hot_days"),
            (Retention { disk_mib: 1, ..Retention::default() }, "disk_mib"),
        ] {
            assert_eq!(rules.validate().unwrap_err().0, key);
        }
    }
}
