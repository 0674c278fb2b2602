//! What is known of each rule beside its own code: how much its word counts, what it stands
//! for in MITRE ATT&CK, and what would make it harmless.
//!
//! In: a rule's name. Out: a row of [`CATALOGUE`]; a rule that is not there counts little and
//! says so. Technique ids are those of MITRE ATT&CK for Enterprise, version 18 (October 2025,
//! attack.mitre.org): what the traffic may be, not what it is.
//!
//! Invariants: sorted by name; every rule of tier 0 is here.

/// The rule that is no detector's: what a language model raised. See [`super::judge`].
pub(crate) const OPINION: &str = "second-opinion";

/// The version of ATT&CK the ids are of.
pub(crate) const ATTACK: &str = "MITRE ATT&CK Enterprise v18";

/// What a rule looks at. Two rules of one family see the same thing: they do not confirm
/// each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// Somebody knows it to be bad.
    Reputation,
    /// What a process may do.
    Authority,
    /// What names look like.
    Names,
    /// When and how long.
    Timing,
    /// How much.
    Volume,
    /// By which way: ports, addresses, resolvers.
    Path,
    /// Who tries what.
    Probing,
    /// Never seen before.
    Novelty,
    /// A person wants to know.
    Interest,
    /// The watching itself.
    Sensors,
}

impl Family {
    pub(crate) const ALL: [Self; 10] = [
        Self::Reputation,
        Self::Authority,
        Self::Names,
        Self::Timing,
        Self::Volume,
        Self::Path,
        Self::Probing,
        Self::Novelty,
        Self::Interest,
        Self::Sensors,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reputation => "reputation",
            Self::Authority => "authority",
            Self::Names => "names",
            Self::Timing => "timing",
            Self::Volume => "volume",
            Self::Path => "path",
            Self::Probing => "probing",
            Self::Novelty => "novelty",
            Self::Interest => "interest",
            Self::Sensors => "sensors",
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleFacts {
    pub(crate) name: &'static str,
    pub(crate) family: Family,
    /// 0 to 1: how much its agreement raises what another family says.
    pub(crate) weight: f64,
    /// Silent only where a person names the rule and says why.
    pub(crate) known_bad: bool,
    /// A note until a connection follows.
    pub(crate) waits: bool,
    /// Technique ids with their names.
    pub(crate) attack: &'static [(&'static str, &'static str)],
    /// What would make it harmless.
    pub(crate) benign: &'static str,
}

const fn rule(
    name: &'static str,
    family: Family,
    weight: f64,
    attack: &'static [(&'static str, &'static str)],
    benign: &'static str,
) -> RuleFacts {
    RuleFacts { name, family, weight, known_bad: false, waits: false, attack, benign }
}

const fn bad(
    name: &'static str,
    family: Family,
    attack: &'static [(&'static str, &'static str)],
    benign: &'static str,
) -> RuleFacts {
    RuleFacts { known_bad: true, ..rule(name, family, 1.0, attack, benign) }
}

/// For a rule that is not in the catalogue.
const UNKNOWN: RuleFacts = rule(
    "",
    Family::Novelty,
    0.3,
    &[],
    "nothing is known of this rule here; its evidence says what it saw",
);

const APP: (&str, &str) = ("T1071", "Application Layer Protocol");
const WEB: (&str, &str) = ("T1071.001", "Application Layer Protocol: Web Protocols");
const DNS: (&str, &str) = ("T1071.004", "Application Layer Protocol: DNS");
const DGA: (&str, &str) = ("T1568.002", "Dynamic Resolution: Domain Generation Algorithms");
const RESOLVE: (&str, &str) = ("T1568", "Dynamic Resolution");
const TUNNEL: (&str, &str) = ("T1572", "Protocol Tunneling");
const EXFIL_C2: (&str, &str) = ("T1041", "Exfiltration Over C2 Channel");
const EXFIL_ALT: (&str, &str) = ("T1048", "Exfiltration Over Alternative Protocol");
const EXFIL_WEB: (&str, &str) = ("T1567", "Exfiltration Over Web Service");
const EXFIL_TIMED: (&str, &str) = ("T1029", "Scheduled Transfer");
const PORT: (&str, &str) = ("T1571", "Non-Standard Port");
const SCAN: (&str, &str) = ("T1046", "Network Service Discovery");
const HOSTS: (&str, &str) = ("T1018", "Remote System Discovery");
const REMOTE: (&str, &str) = ("T1021", "Remote Services");
const PROXY: (&str, &str) = ("T1090", "Proxy");
const FALLBACK: (&str, &str) = ("T1008", "Fallback Channels");
const HARDWARE: (&str, &str) = ("T1200", "Hardware Additions");
const DRIVE_BY: (&str, &str) = ("T1189", "Drive-by Compromise");
const COMPROMISE: (&str, &str) = ("T1554", "Compromise Host Software Binary");
const MASQUERADE: (&str, &str) = ("T1036", "Masquerading");
const EXECUTION: (&str, &str) = ("T1059", "Command and Scripting Interpreter");
const INGRESS: (&str, &str) = ("T1105", "Ingress Tool Transfer");
const IMPAIR: (&str, &str) = ("T1562", "Impair Defenses");

/// All rules, by name.
pub(crate) static CATALOGUE: &[RuleFacts] = &[
    rule(
        "ancestry",
        Family::Authority,
        0.8,
        &[EXECUTION, INGRESS],
        "an updater, a build or a person's own script that does so on purpose: give the rule an \
         exception in ancestry.toml",
    ),
    bad(
        "authority",
        Family::Authority,
        &[APP, EXFIL_WEB],
        "the program is meant to go there: add the destination to its authority",
    ),
    rule(
        "beacon",
        Family::Timing,
        0.9,
        &[APP, WEB, EXFIL_TIMED],
        "time, updates, mail, push messages and monitoring are periodic too: a maker's own \
         service, asked by many devices, with answers larger than questions",
    ),
    bad(
        "blocklist",
        Family::Reputation,
        &[APP, RESOLVE],
        "the list errs or is out of date, the entry is an advertiser rather than an attacker, or \
         the resolver refused the name and nothing followed",
    ),
    rule(
        "destination",
        Family::Path,
        0.5,
        &[PROXY],
        "a VPN, a Tor client or a hosted service that somebody here uses knowingly",
    ),
    rule(
        "dga",
        Family::Names,
        0.7,
        &[DGA],
        "a content network's or a tracker's names of letters and digits that exist, an ad \
         blocker's or a browser's probe for names that must not",
    ),
    rule(
        "direct-ip",
        Family::Path,
        0.5,
        &[APP, FALLBACK],
        "a program with built-in addresses (games, telephony, peer to peer, time), or a name \
         resolved where no sensor sees it",
    ),
    rule(
        "dns-bypass",
        Family::Path,
        0.5,
        &[DNS],
        "a device with its own resolver set (browsers with DNS over HTTPS, televisions): allow \
         it, or stop it at the firewall",
    ),
    rule(
        "dns-rebinding",
        Family::Names,
        0.7,
        &[DRIVE_BY],
        "a maker's name for a device in the house (media servers, routers do so on purpose)",
    ),
    rule(
        "dns-tunnel",
        Family::Names,
        0.9,
        &[DNS, TUNNEL, EXFIL_ALT],
        "reputation services of mail and antivirus programs ask by such names; a VPN over DNS \
         somebody here uses",
    ),
    rule(
        "exfil",
        Family::Volume,
        0.8,
        &[EXFIL_C2, EXFIL_ALT, EXFIL_WEB],
        "a backup, a synchronised folder, a video call, or a camera that its owner watches from \
         outside",
    ),
    rule(
        "exfil-dns",
        Family::Names,
        0.7,
        &[DNS, EXFIL_ALT],
        "a virus scanner, a mail filter or telemetry that asks in names",
    ),
    rule(
        "fan-out",
        Family::Probing,
        0.6,
        &[SCAN, HOSTS],
        "peer to peer, a game looking for servers, a crawler",
    ),
    rule(
        "firewall",
        Family::Probing,
        0.4,
        &[SCAN],
        "a service the device tries and the firewall rightly refuses; a printer or a game that \
         asks for more ports than it gets",
    ),
    rule(
        "home-peer",
        Family::Path,
        0.3,
        &[PROXY, EXFIL_C2],
        "file sharing, a game, somebody's own server at home",
    ),
    rule(
        "host-scan",
        Family::Probing,
        0.7,
        &[SCAN, HOSTS],
        "a network scanner somebody runs, a hub or a television looking for its devices",
    ),
    rule(
        "inner-scan",
        Family::Probing,
        0.7,
        &[SCAN, HOSTS],
        "a network scanner somebody runs, a hub or a television looking for its devices",
    ),
    rule(
        "lasting-address",
        Family::Path,
        0.5,
        &[APP, FALLBACK],
        "a program with built-in addresses (games, telephony, peer to peer, time)",
    ),
    rule(
        "lateral",
        Family::Probing,
        0.7,
        &[REMOTE],
        "administration from a new machine, a new file share, a backup within the house",
    ),
    rule("log-late", Family::Sensors, 0.1, &[], "the sender's clock is wrong, or it is busy"),
    rule(
        "log-silent",
        Family::Sensors,
        0.1,
        &[IMPAIR],
        "the sender was switched off, or nobody is at home",
    ),
    rule(
        "long",
        Family::Timing,
        0.6,
        &[APP, TUNNEL],
        "a VPN, a remote desktop, push messages, a stream",
    ),
    rule(
        "long-flow",
        Family::Timing,
        0.5,
        &[APP, TUNNEL],
        "a VPN, a remote desktop, push messages, a film",
    ),
    rule(
        "new-device",
        Family::Novelty,
        0.3,
        &[HARDWARE],
        "a guest's or a new device; a phone that has changed its made-up MAC",
    ),
    rule(
        "new-domain",
        Family::Novelty,
        0.3,
        &[RESOLVE],
        "people go to new places; it counts only beside something else",
    ),
    rule(
        "new-program",
        Family::Novelty,
        0.3,
        &[EXECUTION],
        "somebody installed something; it counts only beside something else",
    ),
    rule(
        "nxdomain-burst",
        Family::Names,
        0.5,
        &[DGA],
        "a search list that is appended to every name, a service that has moved away",
    ),
    rule(
        "off-hours",
        Family::Timing,
        0.4,
        &[EXFIL_TIMED],
        "updates and backups at night, a journey, a clock change",
    ),
    rule(
        "off-profile",
        Family::Novelty,
        0.4,
        &[APP],
        "an update that changed what the device does, a new use of it",
    ),
    rule(
        "port-scan",
        Family::Probing,
        0.7,
        &[SCAN],
        "a file transfer with many ports, a scanner somebody runs",
    ),
    rule(
        "program-replaced",
        Family::Novelty,
        0.6,
        &[COMPROMISE, MASQUERADE],
        "an upgrade that no package manager made, a program that updates itself, a build of one's own",
    ),
    rule(
        "query-rate",
        Family::Volume,
        0.3,
        &[DNS],
        "a program that asks again and again for a name it does not get",
    ),
    rule("rare-port", Family::Path, 0.4, &[PORT], "a program its owner has installed"),
    bad(
        "retro-hunt",
        Family::Reputation,
        &[APP, RESOLVE],
        "the list errs, or the address belonged to somebody else when it was used here",
    ),
    rule(
        OPINION,
        Family::Interest,
        0.0,
        &[],
        "a model guesses: the numbers it rests on are in its opinion (agentmon llm opinions)",
    ),
    rule(
        "sensor-silent",
        Family::Sensors,
        0.1,
        &[IMPAIR],
        "the sensor was switched off, restarted, or its line was cut",
    ),
    rule(
        "strobe",
        Family::Timing,
        0.6,
        &[APP],
        "monitoring, or a program that tries again without waiting",
    ),
    rule(
        "unknown-program",
        Family::Novelty,
        0.5,
        &[EXECUTION, MASQUERADE],
        "a program of one's own making, or one installed past the package manager: put its file \
         into detect.programs.allow",
    ),
    rule(
        "unreported",
        Family::Sensors,
        0.6,
        &[IMPAIR],
        "the agent was stopped or updated, or containers and virtual machines stand behind the \
         host's address",
    ),
    rule("unusual-port", Family::Path, 0.4, &[PORT], "a new program or game on a port of its own"),
    rule(
        "volume-anomaly",
        Family::Volume,
        0.5,
        &[EXFIL_C2],
        "a new film, an update, a move of data by its owner",
    ),
    RuleFacts {
        waits: true,
        ..rule(
            "watched",
            Family::Interest,
            0.3,
            &[],
            "it is watched because somebody wants to know, not because it is bad",
        )
    },
];

/// What is known of a rule.
pub(crate) fn of(name: &str) -> &'static RuleFacts {
    let at = CATALOGUE.binary_search_by(|row| row.name.cmp(name));
    at.ok().and_then(|at| CATALOGUE.get(at)).unwrap_or(&UNKNOWN)
}

/// Whether it may be a rule's name: lower case and dashes.
pub(crate) fn is_rule_name(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=40).contains(&name.len()) && name.chars().all(letters)
}

#[cfg(test)]
mod tests {
    use agentmon_core::tier0::rules::RULES;

    use super::*;

    #[test]
    fn every_rule_is_here_once() {
        assert!(CATALOGUE.is_sorted_by(|a, b| a.name < b.name));
        for rule in &RULES {
            assert_eq!(of(rule.name).name, rule.name, "a rule of tier 0 is not in the catalogue");
        }
        assert!(of("no-such-rule").benign.contains("nothing is known"));
    }

    #[test]
    fn rows_can_be_shown_and_counted_on() {
        for row in CATALOGUE {
            assert!(is_rule_name(row.name), "{}", row.name);
            assert!((0.0..=1.0).contains(&row.weight), "{}", row.name);
            assert!(!row.benign.is_empty() && !row.benign.contains("  "), "{}", row.name);
            for (id, name) in row.attack {
                let digits = id.strip_prefix('T').unwrap().replace('.', "");
                assert!(matches!(digits.len(), 4 | 7), "{id}");
                assert!(digits.chars().all(|c| c.is_ascii_digit()) && !name.is_empty(), "{id}");
            }
        }
    }
}
