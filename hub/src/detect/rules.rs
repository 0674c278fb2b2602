//! The hub's own rules: one line for each, for the documentation.
//!
//! In: the settings for the thresholds they stand for. Out: what each rule says, what it needs
//! to see, from where on it speaks, what of the same shape it is silent about. The second table
//! of `docs/detectors.md` is made of this, and a test keeps it equal: with `AGENTMON_BLESS=1`
//! it writes it. How much each rule counts: [`crate::alert::rules`].

use std::fmt::Write as _;

use super::Config;

/// What everybody should know about a rule.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) tells: &'static str,
    pub(crate) needs: &'static str,
    pub(crate) threshold: fn(&Config) -> String,
    pub(crate) twin: &'static str,
}

const fn rule(
    name: &'static str,
    tells: &'static str,
    needs: &'static str,
    threshold: fn(&Config) -> String,
    twin: &'static str,
) -> Rule {
    Rule { name, tells, needs, threshold, twin }
}

/// Every rule, by name.
pub(crate) const RULES: &[Rule] = &[
    rule(
        "ancestry",
        "a program with a connection that was started by what should not have started it (web \
         server, browser, document, shell), or from an odd place",
        "a host's agent",
        |_| "the first connection; rules in `ancestry.toml`".into(),
        "the same program started by a person, a package manager, an agent of the catalogue",
    ),
    rule(
        "authority",
        "a program, or one it started, talks to what its authority does not grant",
        "a host's agent; `authority.toml`",
        |_| "the first connection".into(),
        "what is granted; programs without an authority",
    ),
    rule(
        "beacon",
        "what calls the same place again and again",
        "flows, DNS questions",
        |_| "score 0.9 where nothing explains it".into(),
        "time, updates, mail, push messages",
    ),
    rule(
        "destination",
        "a device begins to use Tor or a VPN",
        "flows; networks' kinds",
        |_| "the first connection in 60 days".into(),
        "the VPN it always used",
    ),
    rule(
        "exfil",
        "far more sent than usual, or little by little, to one place",
        "flows with bytes",
        |c| {
            let (burst, drip) = (c.leaks.burst_bytes / 1_000_000, c.leaks.drip_bytes / 1_000_000);
            format!(
                "{burst} MB in a day, 4 times the usual; {drip} MB in a week over 6 hours; 3 times what came back"
            )
        },
        "the nightly backup, photos, calls, telemetry of years",
    ),
    rule(
        "exfil-dns",
        "data in names, over days",
        "DNS questions",
        |_| "100 names of 16 bytes each in a week, not visited".into(),
        "virus scanners' look-ups, names of delivery networks",
    ),
    rule(
        "fan-out",
        "far more addresses than ever",
        "flows",
        |_| "300 in an hour, 4 times its busiest hours".into(),
        "browsing, file sharing that was always there",
    ),
    rule(
        "home-peer",
        "a lasting connection into somebody's home",
        "flows; networks' kinds",
        |_| "100 kB over TCP, without a name".into(),
        "file sharing, games",
    ),
    rule(
        "inner-scan",
        "one port tried at many devices of this network",
        "flows between segments",
        |_| "12 devices in an hour".into(),
        "a phone that looks for the TV",
    ),
    rule(
        "lasting-address",
        "talks for hours with an address nobody resolved",
        "flows, DNS answers",
        |_| "3 hours of a day".into(),
        "time, calls, games, file sharing",
    ),
    rule(
        "lateral",
        "remote control between devices that never did so",
        "flows between segments",
        |_| "the first in 60 days".into(),
        "the log-in of every day",
    ),
    rule(
        "long",
        "a connection that never ends, to a place that is new or has no name",
        "flows with updates",
        |c| format!("{} h in one, or all day one after the other", c.leaks.long_seconds / 3_600),
        "notifications, VPNs, films, calls",
    ),
    rule(
        "new-domain",
        "a domain nobody here had asked for",
        "DNS questions",
        |c| format!("any, once {} days are learnt", c.baseline.learning_days),
        "domains of before",
    ),
    rule(
        "new-program",
        "the first use of the network by a program on a host",
        "a host's agent",
        |c| format!("after {} days of the host", c.programs.learning_days),
        "a new version of a program that is known",
    ),
    rule(
        "off-hours",
        "busy at an hour at which the device always sleeps",
        "flows with bytes",
        |_| "a tenth of its busy hours, on none of 7 days before".into(),
        "devices that never sleep, nights of before",
    ),
    rule(
        "off-profile",
        "a device that behaves as it never did",
        "flows, DNS questions",
        |c| format!("once {} days are learnt", c.baseline.learning_days),
        "its own ordinary days",
    ),
    rule(
        "program-replaced",
        "another content, or signer, under the path of a program that uses the network",
        "a host's agent that tells of contents",
        |_| "high for programs of the system, low where a package owns it".into(),
        "upgrades, the same signer, what is built again and again, what other hosts have",
    ),
    rule(
        "rare-port",
        "a port the device never used in all its history",
        "flows",
        |c| format!("any not well known, once {} days are learnt", c.leaks.learning_days),
        "a port of weeks ago",
    ),
    rule(
        "retro-hunt",
        "something that was done before a list named it",
        "lists of bad things with new entries; flows, DNS questions of any age",
        |_| "once, by the list's score".into(),
        "what a router has told of; entries that were searched for before",
    ),
    rule(
        "second-opinion",
        "a language model takes an alert for worse (`[llm]`, off by default)",
        "an alert",
        |_| "one severity more at most".into(),
        "it never makes an alert of its own",
    ),
    rule(
        "sensor-silent",
        "a sensor that is silent, late, or loses events",
        "sensors' reports",
        |_| "10 min of silence; an hour without events; any loss".into(),
        "one that is well, or was revoked",
    ),
    rule(
        "strobe",
        "a connection every second",
        "flows",
        |c| format!("{} in a day", c.leaks.strobe_connections),
        "resolvers, time servers",
    ),
    rule(
        "unknown-program",
        "a program without signature and package uses the network",
        "a host's agent that tells of packages or signatures",
        |c| {
            format!(
                "after {} days of the host; high from places anybody may write to",
                c.programs.learning_days
            )
        },
        "packages' and signed programs; a host where nobody vouches for anything",
    ),
    rule(
        "unreported",
        "connections of a host that its own agent does not tell of",
        "flows, a host's agent",
        |_| "any, while the agent is there".into(),
        "hosts without an agent",
    ),
    rule(
        "volume-anomaly",
        "far more moved in an hour than usual",
        "flows with bytes",
        |c| format!("once {} days are learnt", c.baseline.learning_days),
        "the film of every evening",
    ),
];

/// The section of the documentation.
pub(crate) fn markdown(config: &Config) -> String {
    let mut text = "\n## Over history\n\n\
        What the hub finds in what is stored, in rounds (`[detect]` in `config/hub.toml`). Nothing\n\
        that rests on habits is more than low before they are learnt. Each rule has a test with the\n\
        twin that must stay silent, over a real database. `agentmon eval day` counts what all of\n\
        them together tell on days of eighty devices on which nothing happens, `agentmon backtest\n\
        --set KEY=VALUE` what other thresholds would have found in one's own past.\n\n\
        | rule | tells | needs | default threshold | silent about |\n\
        |---|---|---|---|---|\n"
        .to_owned();
    for rule in RULES {
        let Rule { name, tells, needs, twin, .. } = rule;
        let threshold = (rule.threshold)(config);
        // Writing to a String cannot fail.
        _ = writeln!(text, "| `{name}` | {tells} | {needs} | {threshold} | {twin} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_documentation_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/detectors.md");
        let written = std::fs::read_to_string(&file).unwrap();
        let current = markdown(&Config::default());
        let (first, section) = written.split_at(written.find("\n## Over").unwrap_or(written.len()));
        if std::env::var_os("AGENTMON_BLESS").is_some() {
            std::fs::write(file, first.to_owned() + &current).unwrap();
            return;
        }
        assert_eq!(section, current, "AGENTMON_BLESS=1 cargo test -p agentmon-hub rules writes it");
    }

    #[test]
    fn sorted_and_known_to_alerts() {
        assert!(RULES.is_sorted_by(|a, b| a.name < b.name));
        for rule in RULES {
            assert_eq!(crate::alert::rules::of(rule.name).name, rule.name);
        }
    }

    /// What an alert may be of stands in one of the two tables: the first has tier 0 and the
    /// receiver of logs.
    #[test]
    fn whatever_counts_for_alerts_is_documented() {
        let first = |name: &str| {
            let tier0 = agentmon_core::tier0::rules::RULES.iter().any(|rule| rule.name == name);
            tier0 || matches!(name, "log-late" | "log-silent")
        };
        for row in crate::alert::rules::CATALOGUE {
            let second = RULES.iter().any(|rule| rule.name == row.name);
            assert!(first(row.name) != second, "{} in both tables or in none", row.name);
        }
    }
}
