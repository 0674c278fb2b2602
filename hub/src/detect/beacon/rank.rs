//! How much a rhythm matters: most of what beats in a home is fine.
//!
//! In: a [`Rhythm`] and the [`Facts`] about the service it goes to. Out: a rank from 0 to 1
//! and the reasons, in words. Pure. The rhythm's own score stays as it is: what beats is
//! shown, what explains it is said beside it.
//!
//! Prevalence is by devices, not by parts: in a home of ten, one other device with the same
//! habit says much.

use crate::destinations::Class;

use super::rhythm::Rhythm;

/// Rank from which a rhythm is a finding.
pub const FINDING: f64 = 0.6;
/// The score of a finding of the highest rank: a rhythm alone is never critical.
pub const SCORE_MAX: f64 = 0.75;

/// What is known of a service besides its rhythm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts<'a> {
    /// Name or address.
    pub target: &'a str,
    /// The device had asked for a name.
    pub named: bool,
    /// Devices that use it, this one included.
    pub devices: usize,
    /// Names of the same domain that this device uses.
    pub names: usize,
    /// Lowest and highest port.
    pub ports: Option<(u16, u16)>,
    /// What kind of network the address is in.
    pub class: Option<Class>,
    /// Seconds for which answers are good.
    pub ttl: Option<u32>,
    /// There were connections, not only questions.
    pub flows: bool,
    /// How much the bytes sent differ, as in [`super::services::Use::spread`].
    pub spread: f64,
    /// Bytes each beat moved.
    pub bytes: f64,
}

/// A rank with its reasons.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rank {
    /// From 0 (explained) to 1.
    pub rank: f64,
    /// What explains it, or speaks against it.
    pub reasons: Vec<String>,
}

/// Words of names that say themselves what keeps time there.
const WORDS: [(&str, &str); 12] = [
    ("ntp", "asks for the time"),
    ("time", "asks for the time"),
    ("update", "asks for updates"),
    ("updates", "asks for updates"),
    ("firmware", "asks for updates"),
    ("ocsp", "asks whether certificates are still good"),
    ("crl", "asks whether certificates are still good"),
    ("connectivitycheck", "asks whether the internet is there"),
    ("detectportal", "asks whether the internet is there"),
    ("imap", "asks for mail"),
    ("push", "keeps a line open for messages"),
    ("mqtt", "keeps a line open for messages"),
];

/// Ports of services that keep time.
fn port_says(port: u16) -> Option<(f64, &'static str)> {
    Some(match port {
        123 => (0.2, "is the time service's port"),
        53 | 853 => (0.2, "is a resolver's port"),
        25 | 110 | 143 | 465 | 587 | 993 | 995 => (0.5, "is a mail service's port"),
        1883 | 8883 | 5222 | 5223 | 5228..=5230 => (0.5, "is a message service's port"),
        3478..=3481 | 19302..=19309 => (0.5, "is for finding one's own address"),
        _ => return None,
    })
}

/// Ranks a rhythm.
#[must_use]
pub fn rank(rhythm: &Rhythm, facts: &Facts<'_>) -> Rank {
    let mut rank = Rank { rank: rhythm.score, reasons: Vec::new() };
    let mut because = |factor: f64, reason: String| {
        rank.rank *= factor;
        rank.reasons.push(reason);
    };
    match facts.devices {
        0 | 1 => {}
        2 => because(0.55, "another device uses it too".to_owned()),
        n => because(0.35, format!("{} other devices use it too", n - 1)),
    }
    if let Some((factor, said)) = only_port(facts.ports).and_then(port_says) {
        because(factor, format!("port {} {said}", facts.ports.unwrap_or_default().0));
    }
    let parts = || facts.target.split(['.', '-']);
    if let Some((_, said)) = WORDS.iter().find(|(word, _)| parts().any(|part| part == *word)) {
        because(0.6, format!("by its name it {said}"));
    }
    if !facts.flows && facts.ttl.is_some_and(|ttl| ttl_explains(rhythm, ttl)) {
        because(0.4, "it is asked for whenever the last answer is no longer good".to_owned());
    }
    if facts.names > 2 {
        because(0.8, format!("the device uses {} names of this domain", facts.names));
    }
    volume(facts, &mut because);
    network(facts, &mut because);
    if rhythm.beats < 10 {
        because(0.8, format!("only {} beats were seen", rhythm.beats));
    }
    if rank.reasons.is_empty() {
        rank.reasons.push("nothing explains it".to_owned());
    }
    rank.rank = rank.rank.clamp(0.0, 1.0);
    rank
}

/// What never changes is a machine's; what differs much is somebody's use.
fn volume(facts: &Facts<'_>, because: &mut impl FnMut(f64, String)) {
    if !facts.flows {
        return;
    }
    if facts.spread > 0.5 {
        because(0.6, "what it sends differs much from time to time".to_owned());
    } else if facts.spread > 0.15 {
        because(0.55, "what it sends differs from time to time".to_owned());
    } else {
        because(1.0, "it sends the same few bytes each time".to_owned());
    }
    if facts.bytes > 100_000.0 {
        because(0.6, "it moves much each time".to_owned());
    }
}

fn network(facts: &Facts<'_>, because: &mut impl FnMut(f64, String)) {
    match facts.class {
        Some(class) if class.hides() => because(1.2, format!("it goes to {}", class.phrase())),
        Some(class @ (Class::Service | Class::Cdn | Class::Relay)) if facts.named => {
            because(0.7, format!("it goes to {}", class.phrase()));
        }
        _ => {}
    }
    if !facts.named {
        because(1.1, "nobody had asked for its name".to_owned());
    }
}

fn only_port(ports: Option<(u16, u16)>) -> Option<u16> {
    ports.filter(|(low, high)| low == high).map(|(low, _)| low)
}

/// A cache lets a question through when the answer before has become old: the rhythm is the
/// cache's.
fn ttl_explains(rhythm: &Rhythm, ttl: u32) -> bool {
    let ttl = f64::from(ttl);
    ttl >= 20.0 && rhythm.period >= 0.9 * ttl && rhythm.period <= 1.6 * ttl
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heart() -> Rhythm {
        Rhythm { score: 1.0, period: 300.0, beats: 288, ..Rhythm::default() }
    }

    fn facts() -> Facts<'static> {
        Facts {
            target: "cdn.status.example",
            named: true,
            devices: 1,
            names: 1,
            ports: Some((443, 443)),
            flows: true,
            bytes: 900.0,
            ..Facts::default()
        }
    }

    #[track_caller]
    fn check(facts: &Facts<'_>, finding: bool, reason: &str) {
        let rank = rank(&heart(), facts);
        assert_eq!(rank.rank >= FINDING, finding, "{rank:?}");
        assert!(rank.reasons.iter().any(|r| r.contains(reason)), "{rank:?}");
    }

    #[test]
    fn what_nothing_explains_is_a_finding() {
        check(&facts(), true, "same few bytes");
        let address = Facts { named: false, target: "203.0.113.9", ..facts() };
        check(&address, true, "nobody had asked");
        check(&Facts { flows: false, ttl: Some(60), ..facts() }, true, "nothing explains");
        check(&Facts { class: Some(Class::Tor), ..facts() }, true, "Tor");
    }

    #[test]
    fn what_is_explained_is_none() {
        check(&Facts { ports: Some((123, 123)), ..facts() }, false, "time service");
        check(
            &Facts { target: "imap.mail.example", ports: Some((993, 993)), ..facts() },
            false,
            "mail",
        );
        check(&Facts { ports: Some((5228, 5228)), ..facts() }, false, "message");
        check(&Facts { target: "update.vendor.example", spread: 0.3, ..facts() }, false, "updates");
        check(&Facts { devices: 2, ..facts() }, false, "another device");
        check(&Facts { devices: 9, ..facts() }, false, "8 other devices");
        check(&Facts { flows: false, ttl: Some(290), ..facts() }, false, "no longer good");
        check(&Facts { spread: 0.9, names: 4, ..facts() }, false, "differs much");
    }

    #[test]
    fn no_rhythm_no_rank() {
        assert_eq!(rank(&Rhythm::default(), &facts()).rank, 0.0);
    }
}
