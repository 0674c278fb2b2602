//! What is let through although it is listed: for a name or an address, for a device or for
//! all, for a time or for good.
//!
//! In: the configuration's entries, and what a person adds while the router runs (kept in
//! [`FILE_NAME`] of the state directory). Out: the exception that a listed packet falls
//! under. Asked on the queue's thread, only for what is listed: two hundred entries take
//! some microseconds.
//!
//! Invariants: at most [`CONFIGURED_MAX`] and [`ADDED_MAX`] entries; one that has expired
//! lets nothing through, whatever the clock did; a file that cannot be read is told and
//! left alone, and lets nothing through; it is replaced as a whole or not at all.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::event::Mac;
use agentmon_core::name::printable;
use agentmon_core::time::Timestamp;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::collect::dnsmasq_log::prefix::Stamper;
use crate::localtime::Zone;

/// Most entries of the configuration.
pub(super) const CONFIGURED_MAX: usize = 256;
/// Most entries added while running.
pub(super) const ADDED_MAX: usize = 256;
/// Where those are kept, in the state directory.
pub(super) const FILE_NAME: &str = "exceptions.json";
/// Largest such file.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Longest reason kept.
const WHY_BYTES_MAX: usize = 200;
/// Longest time of one: a year. What should hold for longer belongs into the configuration.
pub const FOR_MAX: Duration = Duration::from_secs(366 * 86_400);

/// One entry, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exception {
    /// A name, with all below it; or an address or network. Empty: everything.
    pub what: String,
    /// Whose packets: a MAC, an address or a network. Empty: everybody's.
    pub device: String,
    /// Until when, RFC 3339: `2026-12-24T18:00:00Z`. Empty: for good.
    pub until: String,
    /// Why, for those who find it later.
    pub why: String,
}

/// What is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Everything,
    Name(Name),
    Net(IpNet),
}

/// Whose.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Device {
    Everybody,
    Mac(Mac),
    Net(IpNet),
}

/// One entry, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    what: What,
    device: Device,
    until: Option<Timestamp>,
    /// As it was written.
    pub written: Exception,
}

/// What a listed packet is about.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The name asked for.
    pub name: Option<&'a Name>,
    /// Where it was going.
    pub to: IpAddr,
    /// Who sent it.
    pub client: IpAddr,
    /// The sender's MAC.
    pub mac: Option<Mac>,
}

impl Exception {
    /// Checks it.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn rule(&self) -> Result<Rule, (&'static str, String)> {
        let what = match (self.what.trim(), net(&self.what)) {
            ("", _) => What::Everything,
            (_, Some(net)) => What::Net(net),
            (text, None) => What::Name(Name::parse(text.as_bytes()).map_err(|error| {
                ("what", format!("want a name, an address or a network: {error}"))
            })?),
        };
        let device = match (self.device.trim(), self.device.trim().parse(), net(&self.device)) {
            ("", ..) => Device::Everybody,
            (_, Ok(mac), _) => Device::Mac(mac),
            (_, _, Some(net)) => Device::Net(net),
            _ => return Err(("device", "want a MAC, an address or a network".into())),
        };
        if (&what, &device) == (&What::Everything, &Device::Everybody) {
            let why =
                "want a name or an address, or a device: all of it for all is `enabled = false`";
            return Err(("what", why.into()));
        }
        let until = match self.until.trim() {
            "" => None,
            text => Some(Stamper::new(Zone::utc()).rfc3339(text.as_bytes()).ok_or_else(|| {
                ("until", "want a time as RFC 3339 has it: 2026-12-24T18:00:00Z".to_owned())
            })?),
        };
        let why = printable(self.why.trim().as_bytes(), WHY_BYTES_MAX);
        let written = Self {
            what: match &what {
                What::Everything => String::new(),
                What::Name(name) => name.as_str().to_owned(),
                What::Net(net) => short(*net),
            },
            device: match &device {
                Device::Everybody => String::new(),
                Device::Mac(mac) => mac.to_string(),
                Device::Net(net) => short(*net),
            },
            until: until.map_or_else(String::new, |until: Timestamp| until.to_string()),
            why,
        };
        Ok(Rule { what, device, until, written })
    }
}

/// A lone address is a network of one.
fn net(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let net = text.parse().ok().map(|net: IpNet| net.trunc());
    net.or_else(|| text.parse().ok().map(|ip: IpAddr| ip.to_canonical().into()))
}

/// A network of one is shown as an address.
fn short(net: IpNet) -> String {
    let one = net.prefix_len() == net.max_prefix_len();
    if one { net.addr().to_string() } else { net.trunc().to_string() }
}

impl Rule {
    /// Whether it still holds.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn covers(&self, case: &Case<'_>) -> bool {
        let what = match &self.what {
            What::Everything => true,
            What::Name(name) => case.name.is_some_and(|asked| asked.is_at_or_below(name.as_str())),
            What::Net(net) => net.contains(&case.to),
        };
        what && match self.device {
            Device::Everybody => true,
            Device::Mac(mac) => case.mac == Some(mac),
            Device::Net(net) => net.contains(&case.client),
        }
    }

    /// What `allow --remove` takes: the same as long as it means the same.
    #[must_use]
    pub fn id(&self) -> String {
        let (written, zero) = (&self.written, '\0');
        let key = format!("{}{zero}{}", written.what, written.device);
        format!("{:08x}", xxhash_rust::xxh3::xxh3_64(key.as_bytes()) >> 32)
    }
}

/// `ads.example for 00:00:5e:00:53:01 until 2026-12-24T18:00:00.000000Z`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exception { what, device, until, .. } = &self.written;
        f.write_str(if what.is_empty() { "everything" } else { what })?;
        if !device.is_empty() {
            write!(f, " for {device}")?;
        }
        if until.is_empty() { Ok(()) } else { write!(f, " until {until}") }
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    configured: Vec<Rule>,
    added: Vec<Rule>,
    /// Where those that were added are kept; `None`: nowhere.
    file: Option<PathBuf>,
}

/// Why one cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// A value makes no sense.
    #[error("`{0}`: {1}")]
    Wrong(&'static str, String),
    /// There are too many.
    #[error("there are {ADDED_MAX} already: remove some (allow --list, allow --remove ID)")]
    Full,
    /// It holds now, and not after a restart.
    #[error("in force, but lost at the next restart: {0}")]
    NotKept(#[from] io::Error),
}

impl Exceptions {
    /// What was kept in the state directory; expired entries are left out.
    ///
    /// # Errors
    /// The file is there and cannot be read, or makes no sense. Going on with
    /// [`Self::default`] loses it at the next addition.
    pub fn load(folder: &Path, now: Timestamp) -> anyhow::Result<Self> {
        let path = folder.join(FILE_NAME);
        let mut text = Vec::new();
        match fs::File::open(&path) {
            Ok(file) => drop(file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        anyhow::ensure!(text.len() as u64 <= FILE_BYTES_MAX, "longer than {FILE_BYTES_MAX} bytes");
        let written: Vec<Exception> =
            if text.is_empty() { Vec::new() } else { serde_json::from_slice(&text)? };
        let rules = written.iter().map(Exception::rule).filter_map(Result::ok);
        // A clock that nobody has set yet ends nothing.
        let added = rules.filter(|rule| rule.holds(now)).take(ADDED_MAX).collect();
        Ok(Self { configured: Vec::new(), added, file: Some(path) })
    }

    /// Puts those of the configuration in force; they have been checked.
    pub fn configure(&mut self, written: &[Exception]) {
        self.configured = written.iter().filter_map(|one| one.rule().ok()).collect();
    }

    /// The exception that this falls under.
    #[must_use]
    pub fn find(&self, case: &Case<'_>, now: Timestamp) -> Option<&Rule> {
        let mut all = self.configured.iter().chain(&self.added);
        all.find(|rule| rule.holds(now) && rule.covers(case))
    }

    /// All that hold; whether each was added while running.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = (&Rule, bool)> {
        let configured = self.configured.iter().map(|rule| (rule, false));
        configured
            .chain(self.added.iter().map(|rule| (rule, true)))
            .filter(move |(r, _)| r.holds(now))
    }

    /// Adds one, in place of an earlier one about the same.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add(&mut self, new: &Exception, now: Timestamp) -> Result<Rule, AddError> {
        let rule = new.rule().map_err(|(key, why)| AddError::Wrong(key, why))?;
        if !rule.holds(now) {
            return Err(AddError::Wrong("until", "is over already".into()));
        }
        self.added.retain(|old| old.holds(now) && old.id() != rule.id());
        if self.added.len() >= ADDED_MAX {
            return Err(AddError::Full);
        }
        self.added.push(rule.clone());
        self.keep()?;
        Ok(rule)
    }

    /// Takes away those added with this id, or about this; how many.
    ///
    /// # Errors
    /// It is gone, but comes back at the next restart.
    pub fn remove(&mut self, which: &str) -> Result<usize, AddError> {
        let which = which.trim().to_ascii_lowercase();
        let before = self.added.len();
        self.added.retain(|rule| rule.id() != which && rule.written.what != which);
        let removed = before - self.added.len();
        if removed > 0 {
            self.keep()?;
        }
        Ok(removed)
    }

    fn keep(&self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let written: Vec<_> = self.added.iter().map(|rule| &rule.written).collect();
        let json = serde_json::to_vec_pretty(&written)?;
        let new = path.with_extension("new");
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        let written = write();
        if written.is_err() {
            drop(fs::remove_file(&new));
        }
        written
    }
}

/// `90s`, `30m`, `2h`, `7d`; a number alone is seconds.
///
/// # Errors
/// What is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("want a time such as 30m, 2h or 7d, at most {} days", FOR_MAX.as_secs() / 86_400)
    };
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match text.strip_prefix(digits) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        Some("w") => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let time = Duration::from_secs(number.saturating_mul(unit));
    if time.is_zero() || time > FOR_MAX { Err(wrong()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
    const MAC: Mac = Mac([0, 0, 0x5e, 0, 0x53, 1]);

    fn exception(what: &str, device: &str, until: &str) -> Exception {
        let text = |t: &str| t.to_owned();
        Exception { what: text(what), device: text(device), until: text(until), why: text("x") }
    }

    /// Whether a question of 192.168.1.7 for `name`, put to 198.51.100.9, is let through.
    #[track_caller]
    fn check(one: Exception, name: &str, expected: bool) {
        let mut all = Exceptions::default();
        one.rule().unwrap();
        all.configure(&[one]);
        let name = Name::parse(name.as_bytes()).unwrap();
        let (to, client) = ("198.51.100.9".parse().unwrap(), "192.168.1.7".parse().unwrap());
        let case = Case { name: Some(&name), to, client, mac: Some(MAC) };
        assert_eq!(all.find(&case, NOW).is_some(), expected);
    }

    #[test]
    fn names_addresses_and_devices() {
        check(exception("bad.example", "", ""), "www.bad.example", true);
        check(exception("BAD.example.", "", ""), "bad.example", true);
        check(exception("bad.example", "", ""), "notbad.example", false);
        check(exception("198.51.100.9", "", ""), "bad.example", true);
        check(exception("198.51.100.0/24", "", ""), "bad.example", true);
        check(exception("198.51.100.8", "", ""), "bad.example", false);
        check(exception("", "00-00-5E-00-53-01", ""), "bad.example", true);
        check(exception("", "00:00:5e:00:53:02", ""), "bad.example", false);
        check(exception("", "192.168.1.7", ""), "bad.example", true);
        check(exception("", "192.168.1.0/24", ""), "bad.example", true);
        check(exception("bad.example", "192.168.2.0/24", ""), "bad.example", false);
        check(exception("bad.example", "192.168.1.7", ""), "bad.example", true);
        check(exception("good.example", "192.168.1.7", ""), "bad.example", false);
    }

    #[test]
    fn they_end() {
        check(exception("bad.example", "", "2026-11-18T11:06:41Z"), "bad.example", true);
        check(exception("bad.example", "", "2026-11-18T11:06:40Z"), "bad.example", false);
        check(exception("bad.example", "", "2026-11-18T12:06:41+01:00"), "bad.example", true);
    }

    #[track_caller]
    fn refused(one: Exception, key: &str) {
        assert_eq!(one.rule().unwrap_err().0, key);
    }

    #[test]
    fn nonsense_is_refused() {
        refused(exception("", "", ""), "what");
        refused(exception("a..b", "", ""), "what");
        refused(exception("bad.example", "laptop", ""), "device");
        refused(exception("bad.example", "", "tomorrow"), "until");
    }

    #[test]
    fn what_is_added_is_kept_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Exceptions::load(folder.path(), NOW).unwrap();
        let texts =
            |all: &Exceptions| all.iter(NOW).map(|(r, _)| r.to_string()).collect::<Vec<_>>();
        let mut all = load();
        let late = NOW.plus(Duration::from_secs(60)).to_string();
        all.add(&exception("bad.example", "", &late), NOW).unwrap();
        all.add(&exception("worse.example", "192.168.1.7", ""), NOW).unwrap();
        let expected =
            ["bad.example until 2026-11-18T11:07:40.000000Z", "worse.example for 192.168.1.7"];
        assert_eq!(texts(&load()), expected);
        // The same once more: in place of the first.
        let rule = all.add(&exception("Bad.example", "", ""), NOW).unwrap();
        assert_eq!(texts(&load()), ["worse.example for 192.168.1.7", "bad.example"]);
        assert_eq!(all.remove(&rule.id()).unwrap() + all.remove("worse.example").unwrap(), 2);
        assert_eq!((texts(&load()).len(), all.remove("worse.example").unwrap()), (0, 0));
        let over = exception("bad.example", "", "2020-01-01T00:00:00Z");
        assert!(matches!(all.add(&over, NOW), Err(AddError::Wrong("until", _))));
        for n in 0..ADDED_MAX {
            all.add(&exception(&format!("n{n}.example"), "", ""), NOW).unwrap();
        }
        let more = exception("one.more.example", "", "");
        assert!(matches!(all.add(&more, NOW), Err(AddError::Full)));
        assert_eq!(load().added.len(), ADDED_MAX);
    }

    #[test]
    fn what_has_expired_makes_room() {
        let mut all = Exceptions::default();
        let soon = NOW.plus(Duration::from_secs(1));
        for n in 0..ADDED_MAX {
            all.add(&exception(&format!("n{n}.example"), "", &soon.to_string()), NOW).unwrap();
        }
        assert!(all.add(&exception("late.example", "", ""), NOW).is_err());
        all.add(&exception("late.example", "", ""), soon).unwrap();
        assert_eq!(all.added.len(), 1);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        for text in ["[", "{}", "[{\"what\":7}]", "[{\"whom\":\"x\"}]"] {
            fs::write(&path, text).unwrap();
            assert!(Exceptions::load(folder.path(), NOW).is_err(), "{text}");
        }
        fs::write(&path, vec![b' '; 300_000]).unwrap();
        assert!(Exceptions::load(folder.path(), NOW).unwrap_err().to_string().contains("longer"));
        // One entry that makes no sense does not take the others along.
        fs::write(&path, "[{\"what\":\"a..b\"},{\"what\":\"bad.example\"}]").unwrap();
        assert_eq!(Exceptions::load(folder.path(), NOW).unwrap().added.len(), 1);
    }

    #[test]
    fn where_it_cannot_be_kept_it_holds_all_the_same() {
        let mut all =
            Exceptions { file: Some("/nowhere/at/all.json".into()), ..Exceptions::default() };
        let added = all.add(&exception("bad.example", "", ""), NOW);
        assert!(matches!(added, Err(AddError::NotKept(_))), "{added:?}");
        assert_eq!(all.iter(NOW).count(), 1);
    }

    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|d| d.as_secs()).ok();
        for (text, expected) in [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("30m", Some(1_800)),
            (" 2h ", Some(7_200)),
            ("7d", Some(604_800)),
            ("52w", Some(31_449_600)),
            ("53w", None),
            ("0", None),
            ("", None),
            ("h", None),
            ("-1h", None),
            ("2 h", None),
            ("2y", None),
            ("99999999999999999999", None),
            ("18446744073709551615w", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(what in ".{0,40}", device in ".{0,40}", until in ".{0,40}") {
            if let Ok(rule) = exception(&what, &device, &until).rule() {
                // What was written down says the same again.
                prop_assert_eq!(rule.written.rule().unwrap(), rule);
            }
            drop(duration(&what));
        }
    }
}
