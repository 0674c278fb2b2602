//! Settings of the Pi-hole collector, and which of them make sense.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ureq::http::Uri;

use super::SOURCE;

/// Most Pi-holes of one router.
pub const PIHOLES_MAX: usize = 16;
/// Longest name of one.
const NAME_BYTES_MAX: usize = 32;

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// Where the Pi-hole's web interface is. Without TLS (`http://`) only on this machine.
    pub url: String,
    /// The Pi-hole's address, where its name is not resolved here. Empty: look the name up.
    pub address: String,
    /// File with the password, best an app password (Settings > Web interface / API). Empty:
    /// the Pi-hole asks for none.
    pub password_file: PathBuf,
    /// File with the certificate to trust, in PEM: the Pi-hole's CA
    /// (`/etc/pihole/tls_ca.crt` there), or its own certificate, which is then the only one
    /// taken, whatever name stands in it. Required for `https://`.
    pub certificate: PathBuf,
    /// What it is called in `status` and counters, where there are several: `attic` becomes
    /// `pihole:attic`. Lower case letters, digits, `-` and `_`. Empty: `pihole`, then
    /// `pihole:2` and so on.
    pub name: String,
    /// Longest pause between two looks at the log, in milliseconds (100 to 10000). The busier
    /// the Pi-hole, the shorter: it keeps about 500 lines.
    pub poll_ms: u64,
    /// More Pi-holes, each read on a thread of its own: a table `[[collect.pihole.others]]`
    /// with `name`, `url`, `address`, `password_file` and `certificate`.
    pub others: Vec<Other>,
}

/// One more Pi-hole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Other {
    /// As of the first one.
    pub name: String,
    /// As of the first one.
    pub url: String,
    /// As of the first one.
    pub address: String,
    /// As of the first one.
    pub password_file: PathBuf,
    /// As of the first one.
    pub certificate: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "https://pi.hole".to_owned(),
            address: String::new(),
            password_file: PathBuf::new(),
            certificate: PathBuf::new(),
            name: String::new(),
            poll_ms: 1_000,
            others: Vec::new(),
        }
    }
}

impl Config {
    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if !(100..=10_000).contains(&self.poll_ms) {
            return Err(("poll_ms", format!("want 100 to 10000, not {}", self.poll_ms)));
        }
        if self.others.len() >= PIHOLES_MAX {
            return Err(("others", format!("want at most {PIHOLES_MAX} Pi-holes in all")));
        }
        if !self.enabled {
            return Ok(());
        }
        self.check()?;
        let mut seen = vec![self.url.trim_end_matches('/').to_owned()];
        let mut names = vec![self.shown_name()];
        for other in self.each().skip(1) {
            let named =
                |(key, why): (&str, String)| ("others", format!("{}: {key}: {why}", other.url));
            other.check().map_err(named)?;
            // The place in its log is kept under its URL.
            let url = other.url.trim_end_matches('/').to_owned();
            if seen.contains(&url) {
                return Err(("others", format!("{url} stands there twice")));
            }
            seen.push(url);
            if names.contains(&other.shown_name()) {
                return Err(("others", format!("two are called {}", other.shown_name())));
            }
            names.push(other.shown_name());
        }
        Ok(())
    }

    /// The same settings for each Pi-hole alone: a collector reads one.
    pub fn each(&self) -> impl Iterator<Item = Self> + '_ {
        let first = Self { others: Vec::new(), ..self.clone() };
        let others = self.others.iter().cloned().zip(2..).map(|(other, number)| Self {
            enabled: self.enabled,
            name: if other.name.is_empty() { number.to_string() } else { other.name },
            url: other.url,
            address: other.address,
            password_file: other.password_file,
            certificate: other.certificate,
            poll_ms: self.poll_ms,
            others: Vec::new(),
        });
        std::iter::once(first).chain(others)
    }

    /// Its name in `status`, and the first part of its counters.
    #[must_use]
    pub(crate) fn shown_name(&self) -> String {
        if self.name.is_empty() { SOURCE.into() } else { format!("{SOURCE}:{}", self.name) }
    }

    /// One Pi-hole.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if self.name.len() > NAME_BYTES_MAX || !self.name.bytes().all(plain) {
            let want = "lower case letters, digits, - and _";
            return Err(("name", format!("want at most {NAME_BYTES_MAX} of {want}")));
        }
        let tls = self.check_url().map_err(|problem| ("url", problem))?;
        if !self.address.is_empty() && self.address.parse::<IpAddr>().is_err() {
            return Err(("address", "want an IP address, or nothing".into()));
        }
        for (key, path) in
            [("password_file", &self.password_file), ("certificate", &self.certificate)]
        {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                return Err((key, format!("{} is no absolute path", path.display())));
            }
        }
        if tls && self.certificate.as_os_str().is_empty() {
            return Err((
                "certificate",
                "name the file with the Pi-hole's certificate or CA (copy /etc/pihole/tls_ca.crt \
                 from there)"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Whether it is TLS.
    fn check_url(&self) -> Result<bool, String> {
        let wrong = || "want https://HOST or https://HOST:PORT".to_owned();
        let uri: Uri = self.url.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let user = uri.authority().is_some_and(|a| a.as_str().contains('@'));
        if !bare || user {
            return Err(wrong());
        }
        let loopback = |text: &str| {
            let ip = text.trim_matches(['[', ']']).parse::<IpAddr>();
            ip.is_ok_and(|ip| ip.is_loopback())
        };
        let here = if self.address.is_empty() {
            host == "localhost" || loopback(host)
        } else {
            loopback(&self.address)
        };
        match uri.scheme_str() {
            Some("https") => Ok(true),
            Some("http") if here => Ok(false),
            Some("http") => Err("want https://: the password would pass in the clear".into()),
            _ => Err(wrong()),
        }
    }

    /// The URL of an endpoint, `auth` or `logs/dnsmasq`.
    #[must_use]
    pub(super) fn endpoint(&self, path: &str) -> String {
        format!("{}/api/{path}", self.url.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, address: &str, certificate: &str, expected: Result<(), &str>) {
        let config = Config {
            enabled: true,
            url: url.into(),
            address: address.into(),
            certificate: certificate.into(),
            ..Config::default()
        };
        assert_eq!(config.validate().map_err(|(key, _)| key), expected);
        assert_eq!(Config { enabled: false, ..config }.validate(), Ok(()));
    }

    #[test]
    fn what_makes_sense() {
        check("https://pi.hole", "", "/etc/agentmon/pihole.pem", Ok(()));
        check("https://pi.hole:8443/", "192.0.2.2", "/c", Ok(()));
        check("https://[2001:db8::2]", "", "/c", Ok(()));
        check("https://pi.hole", "", "", Err("certificate"));
        check("https://pi.hole", "", "pihole.pem", Err("certificate"));
        check("https://pi.hole", "pi.hole", "/c", Err("address"));
        check("http://127.0.0.1:8080", "", "", Ok(()));
        check("http://localhost", "", "", Ok(()));
        check("http://[::1]", "", "", Ok(()));
        check("http://localhost", "192.0.2.2", "", Err("url"));
        check("http://192.0.2.2", "", "", Err("url"));
        check("http://localhost.example.com", "", "", Err("url"));
        check("https://user@pi.hole", "", "/c", Err("url"));
        check("https://pi.hole/admin", "", "/c", Err("url"));
        check("https://pi.hole?x=1", "", "/c", Err("url"));
        check("pi.hole", "", "/c", Err("url"));
        check("", "", "/c", Err("url"));
        check("ftp://pi.hole", "", "/c", Err("url"));
    }

    #[test]
    fn several_are_told_apart() {
        let other =
            |url: &str| Other { url: url.into(), certificate: "/c".into(), ..Other::default() };
        let config = |urls: &[&str]| Config {
            enabled: true,
            certificate: "/c".into(),
            others: urls.iter().map(|url| other(url)).collect(),
            ..Config::default()
        };
        let mut two = config(&["https://192.0.2.3", "https://192.0.2.4"]);
        assert_eq!(two.validate(), Ok(()));
        let names = |c: &Config| c.each().map(|one| one.shown_name()).collect::<Vec<_>>();
        assert_eq!(names(&two), ["pihole", "pihole:2", "pihole:3"]);
        two.name = "cellar".into();
        two.others[1].name = "attic".into();
        assert_eq!(names(&two), ["pihole:cellar", "pihole:2", "pihole:attic"]);
        assert_eq!(two.validate(), Ok(()));
        let urls: Vec<_> = two.each().map(|one| one.url).collect();
        assert_eq!(urls, ["https://pi.hole", "https://192.0.2.3", "https://192.0.2.4"]);
        assert!(two.each().all(|one| one.others.is_empty() && one.validate().is_ok()));
        let problem = |urls: &[&str]| config(urls).validate().unwrap_err();
        assert!(problem(&["https://192.0.2.3", "https://pi.hole/"]).1.contains("twice"));
        assert!(problem(&["http://192.0.2.3"]).1.contains("http://192.0.2.3: url"));
        assert_eq!(problem(&["https://192.0.2.3"; PIHOLES_MAX]).0, "others");
        let named = |name: &str| {
            let mut two = two.clone();
            two.others[0].name = name.into();
            two.validate().map_err(|(_, why)| why)
        };
        assert_eq!(named("under_the-roof2"), Ok(()));
        assert!(named("attic").unwrap_err().contains("two are called pihole:attic"));
        for wrong in ["Attic", "a b", "a.b", "ä", &"a".repeat(33)] {
            assert!(named(wrong).unwrap_err().contains("name: want"), "{wrong}");
        }
    }

    #[test]
    fn the_rate_is_bounded() {
        for (poll_ms, fine) in [(99, false), (100, true), (10_000, true), (10_001, false)] {
            let config = Config { poll_ms, ..Config::default() };
            assert_eq!(config.validate().is_ok(), fine, "{poll_ms}");
        }
    }
}
