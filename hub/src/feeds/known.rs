//! Feeds that a name is enough for: `{ feed = "urlhaus" }`.
//!
//! Addresses and licences as their publishers gave them in 2026; all can be set otherwise.
//! Nothing is fetched that a person has not named.

use super::parse::Form;

/// A publisher's feed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// What it is called here, and its list where nothing else is said.
    pub(crate) name: &'static str,
    /// Where it is.
    pub(crate) url: &'static str,
    pub(super) form: Form,
    /// How grave a hit is, 0 to 1.
    pub(crate) score: f64,
    /// Its licence, or whose terms hold.
    pub(crate) licence: &'static str,
    /// Seconds between two fetches; no publisher wants more.
    pub(crate) refresh_seconds: u64,
    /// Days an entry stays after it has left a feed that only tells the newest.
    pub(crate) keep_days: u32,
    /// What it lists.
    pub(crate) about: &'static str,
}

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
const CC0: &str = "CC0-1.0";

/// All of them, by name.
pub(crate) static KNOWN: &[Known] = &[
    Known {
        name: "cert-pl",
        url: "https://hole.cert.pl/domains/v2/domains.json",
        form: Form::CertPl,
        score: 0.7,
        licence: "CERT Polska, free for protection",
        refresh_seconds: HOUR,
        keep_days: 0,
        about: "names of phishing and fraud, CERT Polska",
    },
    Known {
        name: "feodo",
        url: "https://feodotracker.abuse.ch/downloads/ipblocklist.csv",
        form: Form::Feodo,
        score: 0.95,
        licence: CC0,
        refresh_seconds: HOUR,
        keep_days: 0,
        about: "botnet servers by address and port, abuse.ch",
    },
    Known {
        name: "hagezi-tif",
        url: "https://raw.githubusercontent.com/hagezi/dns-blocklists/main/domains/tif.txt",
        form: Form::List,
        score: 0.6,
        licence: "GPL-3.0",
        refresh_seconds: DAY,
        keep_days: 0,
        about: "names of malware, phishing and fraud gathered from many, HaGeZi",
    },
    Known {
        name: "maltrail",
        url: "https://raw.githubusercontent.com/stamparm/aux/master/maltrail-malware-domains.txt",
        form: Form::List,
        score: 0.7,
        licence: "MIT",
        refresh_seconds: DAY,
        keep_days: 0,
        about: "names of malware, Maltrail",
    },
    Known {
        name: "openphish",
        url: "https://raw.githubusercontent.com/openphish/public_feed/refs/heads/main/feed.txt",
        form: Form::Pages,
        score: 0.7,
        licence: "OpenPhish, not for commercial use",
        refresh_seconds: 12 * HOUR,
        keep_days: 14,
        about: "pages of phishing, OpenPhish",
    },
    Known {
        name: "phishing-army",
        url: "https://phishing.army/download/phishing_army_blocklist_extended.txt",
        form: Form::List,
        score: 0.6,
        licence: "CC-BY-NC-4.0",
        refresh_seconds: 6 * HOUR,
        keep_days: 0,
        about: "names of phishing, Phishing Army",
    },
    Known {
        name: "spamhaus-drop",
        url: "https://www.spamhaus.org/drop/drop_v4.json",
        form: Form::SpamhausDrop,
        score: 0.85,
        licence: "Spamhaus, free with attribution",
        refresh_seconds: DAY,
        keep_days: 0,
        about: "IPv4 networks run by or for criminals, Spamhaus",
    },
    Known {
        name: "spamhaus-drop-v6",
        url: "https://www.spamhaus.org/drop/drop_v6.json",
        form: Form::SpamhausDrop,
        score: 0.85,
        licence: "Spamhaus, free with attribution",
        refresh_seconds: DAY,
        keep_days: 0,
        about: "the same of IPv6",
    },
    Known {
        name: "sslbl",
        url: "https://sslbl.abuse.ch/blacklist/sslipblacklist.csv",
        form: Form::Sslbl,
        score: 0.9,
        licence: CC0,
        refresh_seconds: HOUR,
        keep_days: 0,
        about: "botnet servers found by their certificates, abuse.ch",
    },
    Known {
        name: "threatfox",
        url: "https://threatfox.abuse.ch/export/csv/recent/",
        form: Form::Threatfox,
        score: 0.9,
        licence: CC0,
        refresh_seconds: HOUR,
        keep_days: 30,
        about: "names, addresses and pages of malware, abuse.ch",
    },
    Known {
        name: "urlhaus",
        url: "https://urlhaus.abuse.ch/downloads/csv_recent/",
        form: Form::Urlhaus,
        score: 0.85,
        licence: CC0,
        refresh_seconds: HOUR,
        keep_days: 30,
        about: "pages that hand out malware, abuse.ch",
    },
];

/// The feed of that name.
#[must_use]
pub(crate) fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}
