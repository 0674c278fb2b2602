//! The Pi-hole as the collector sees it: four questions over HTTP, and what the answers mean.
//!
//! In: settings, a session id if there is one. Out: pages of log lines and of queries, or a
//! refusal sorted by what to do about it. Blocks the collector's thread, at most
//! [`REQUEST_MAX`] a request.
//!
//! A session lasts as long as it is used; where it has ended (401), the client logs in once
//! more and asks again. The password is read from its file for each login, so that a new one
//! needs no restart, and goes nowhere but into the body of that request. No redirect is
//! followed and no proxy of the environment used.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::name::printable;
use ureq::config::Config as AgentConfig;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, TcpConnector};
use ureq::{Agent, Body, Error};

use super::answer::{self, BODY_BYTES_MAX, LogPage, QueryPage};
use super::config::Config;
use super::trust::Trust;

/// Longest request. FTL answers from memory, also on the slowest Raspberry Pi.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// For the connection, TLS included: a Raspberry Pi 2 takes about a second.
const CONNECT_MAX: Duration = Duration::from_secs(8);
/// For the good-bye: the program is about to end.
const LOGOUT_MAX: Duration = Duration::from_millis(1_500);
/// Longest wait a Pi-hole may ask for; longer ones are cut.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// How long a login that was refused is not tried again: FTL slows down those who guess.
const PASSWORD_PAUSE: Duration = Duration::from_secs(60);
/// How long to wait where all sessions are taken: one that is not used ends after minutes.
const BUSY_PAUSE: Duration = Duration::from_secs(30);
/// Longest file with a password or certificates.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How a session is shown.
const SID_HEADER: &str = "x-ftl-sid";

/// Why there is no answer, by what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The password is wrong, missing, or not enough. A person must act.
    Password(String),
    /// The session has ended; only seen here when a new one does not help either.
    Session,
    /// 429, 503: later; perhaps it says when.
    Busy(String, Duration),
    /// The settings name a file that cannot be used. A person must act.
    Settings(String),
    /// Somebody answered who is no Pi-hole v6, or none that we understand.
    NoPihole(String),
    /// No answer: name, route, port, TLS or time-out.
    Unreachable(String),
}

impl Refusal {
    /// How long to leave the Pi-hole alone, besides the pause after every failure.
    pub(super) const fn pause(&self) -> Option<Duration> {
        match self {
            Self::Password(_) => Some(PASSWORD_PAUSE),
            Self::Busy(_, after) => Some(*after),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(why) | Self::Settings(why) => f.write_str(why),
            Self::Session => f.write_str(
                "the Pi-hole ends each session at once: is its clock right, and is nothing \
                 between that changes headers?",
            ),
            Self::Busy(why, after) => {
                write!(f, "the Pi-hole is busy: {why}; waiting {} s", after.as_secs())
            }
            Self::NoPihole(why) => {
                write!(f, "this is no Pi-hole v6, or none that is understood: {why}; check url")
            }
            Self::Unreachable(why) => write!(f, "Pi-hole not reachable: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// A Pi-hole one may talk to.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    config: Config,
    /// The session, as it stands in the header; empty: none is needed.
    sid: Option<String>,
    /// Logins since this client was made.
    pub(super) logins: u64,
}

impl Client {
    /// For the Pi-hole of `config`, going on with a session. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Refusal::Settings`].
    pub(super) fn new(config: &Config, sid: Option<String>) -> Result<Self, Refusal> {
        let agent_config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("agentmon-router/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_global(Some(REQUEST_MAX))
            .build();
        let resolver = Address(config.address.parse().ok());
        let tcp = TcpConnector::default();
        let agent = if config.url.starts_with("https:") {
            let path = &config.certificate;
            let unusable =
                |why: String| Refusal::Settings(format!("certificate {}: {why}", path.display()));
            let trust = read(path).and_then(|pem| Trust::new(&pem)).map_err(unusable)?;
            Agent::with_parts(agent_config, tcp.chain(trust), resolver)
        } else {
            Agent::with_parts(agent_config, tcp, resolver)
        };
        Ok(Self { agent, config: config.clone(), sid, logins: 0 })
    }

    /// The session, for the next client.
    pub(super) fn into_session(self) -> Option<String> {
        self.sid
    }

    /// Log lines from `next_id` on; without it all that the Pi-hole still has.
    pub(super) fn log(&mut self, next_id: Option<u64>) -> Result<LogPage, Refusal> {
        let path = next_id
            .map_or_else(|| "logs/dnsmasq".to_owned(), |id| format!("logs/dnsmasq?nextID={id}"));
        let body = self.get(&path)?;
        answer::log_page(&body).map_err(Refusal::NoPihole)
    }

    /// Queries of a span, newest first, at most `length`, from number `cursor` down.
    pub(super) fn queries(
        &mut self,
        (from, until): (f64, f64),
        length: usize,
        cursor: Option<u64>,
    ) -> Result<QueryPage, Refusal> {
        let cursor = cursor.map(|id| format!("&cursor={id}")).unwrap_or_default();
        let path = format!("queries?from={from:.6}&until={until:.6}&length={length}{cursor}");
        let body = self.get(&path)?;
        answer::query_page(&body, super::SOURCE).map_err(Refusal::NoPihole)
    }

    /// The network table: devices and how many elements made no sense.
    pub(super) fn devices(&mut self) -> Result<(Vec<Event>, usize), Refusal> {
        let (devices, addresses) = (answer::DEVICES_MAX, answer::ADDRESSES_MAX);
        let path = format!("network/devices?max_devices={devices}&max_addresses={addresses}");
        let body = self.get(&path)?;
        answer::devices(&body).map_err(Refusal::NoPihole)
    }

    /// Ends the session, as far as that can be done quickly: the Pi-hole has few of them.
    pub(super) fn logout(&mut self) {
        let Some(sid) = self.sid.take().filter(|sid| !sid.is_empty()) else { return };
        let request = self
            .agent
            .delete(self.config.endpoint("auth"))
            .header(SID_HEADER, sid)
            .config()
            .timeout_global(Some(LOGOUT_MAX))
            .build();
        // It ends by itself when it is not used.
        drop(request.call());
    }

    /// The body of a good answer.
    fn get(&mut self, path: &str) -> Result<Vec<u8>, Refusal> {
        let fresh = self.sid.is_none();
        if fresh {
            self.login()?;
        }
        match self.try_get(path) {
            Err(Refusal::Session) if !fresh => {
                self.login()?;
                self.try_get(path)
            }
            other => other,
        }
    }

    fn try_get(&mut self, path: &str) -> Result<Vec<u8>, Refusal> {
        let mut request = self.agent.get(self.config.endpoint(path));
        if let Some(sid) = self.sid.as_deref().filter(|sid| !sid.is_empty()) {
            request = request.header(SID_HEADER, sid);
        }
        let (status, body) = received(request.call())?;
        match status {
            200 => Ok(body),
            401 => {
                self.sid = None;
                Err(Refusal::Session)
            }
            _ => Err(refusal(status, &body)),
        }
    }

    /// Gets a session.
    fn login(&mut self) -> Result<(), Refusal> {
        self.sid = None;
        self.logins += 1;
        let path = &self.config.password_file;
        let url = self.config.endpoint("auth");
        let (status, body) = if path.as_os_str().is_empty() {
            received(self.agent.get(url).call())?
        } else {
            let password = read(path).map_err(|why| {
                Refusal::Settings(format!("password_file {}: {why}", path.display()))
            })?;
            let text = serde_json::json!({ "password": password.trim_end_matches(['\r', '\n']) });
            let request = self.agent.post(url).header("content-type", "application/json");
            received(request.send(text.to_string()))?
        };
        self.sid = Some(self.admitted(status, &body)?);
        Ok(())
    }

    /// The session of an answer to a login; empty where none is needed.
    fn admitted(&self, status: u16, body: &[u8]) -> Result<String, Refusal> {
        let given = !self.config.password_file.as_os_str().is_empty();
        match status {
            200 | 401 => {}
            400 if answer::error_words(body).is_some_and(|(_, words)| words.contains("2FA")) => {
                return Err(Refusal::Password(two_factors()));
            }
            _ => return Err(refusal(status, body)),
        }
        let session = match answer::session(body) {
            Ok(session) => session,
            // The shape of a 401 has changed over the versions.
            Err(_) if status == 401 && answer::error_words(body).is_some() => {
                answer::Session { valid: false, sid: None, totp: false }
            }
            Err(why) => return Err(Refusal::NoPihole(why)),
        };
        match (session.valid && status == 200, given) {
            (true, _) => Ok(session.sid.unwrap_or_default()),
            (false, true) if session.totp => Err(Refusal::Password(two_factors())),
            (false, true) => Err(Refusal::Password(format!(
                "the Pi-hole refuses the password in {}: write an app password into it (Settings \
                 > Web interface / API > Configure app password)",
                self.config.password_file.display()
            ))),
            (false, false) => Err(Refusal::Password(
                "the Pi-hole wants a password: write an app password (Settings > Web interface / \
                 API) into a file and name it in password_file"
                    .to_owned(),
            )),
        }
    }
}

fn two_factors() -> String {
    "the Pi-hole wants a second factor: use an app password (Settings > Web interface / API > \
     Configure app password), which needs none"
        .to_owned()
}

/// A small text file.
fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Status and body, or why there is none; where the Pi-hole says "later", that.
fn received(result: Result<Response<Body>, Error>) -> Result<(u16, Vec<u8>), Refusal> {
    let mut response = result.map_err(|error| Refusal::Unreachable(explain(&error)))?;
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
    let after = header("retry-after").and_then(retry_after);
    let location = header("location").map(|to| printable(to.as_bytes(), 100));
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec();
    if let Some(to) = location.filter(|_| (300..400).contains(&status)) {
        return Err(Refusal::NoPihole(format!("it sends us on to {to}")));
    }
    let body = match body {
        Ok(body) => body,
        Err(Error::BodyExceedsLimit(_)) => {
            return Err(Refusal::NoPihole(format!("more than {BODY_BYTES_MAX} bytes")));
        }
        Err(error) => return Err(Refusal::Unreachable(explain(&error))),
    };
    if matches!(status, 429 | 503) {
        let (key, words) = answer::error_words(&body).unwrap_or_default();
        let why = match key.as_str() {
            "api_seats_exceeded" => {
                "all its sessions are taken (raise webserver.api.max_sessions there)".to_owned()
            }
            _ if words.is_empty() => status.to_string(),
            _ => words,
        };
        return Err(Refusal::Busy(why, after.unwrap_or(BUSY_PAUSE)));
    }
    Ok((status, body))
}

/// Any other status.
fn refusal(status: u16, body: &[u8]) -> Refusal {
    let words = answer::error_words(body).map(|(_, words)| words);
    match (status, words) {
        (403, words) => Refusal::Password(format!(
            "the Pi-hole forbids it (403 {}): are we in webserver.acl, and may this app read?",
            words.unwrap_or_default()
        )),
        (500..600, words) => Refusal::Unreachable(format!(
            "it has a problem ({status} {})",
            words.unwrap_or_default()
        )),
        (_, Some(words)) => Refusal::NoPihole(format!("{status} {words}")),
        (_, None) => Refusal::NoPihole(status.to_string()),
    }
}

/// Seconds (RFC 9110 section 10.2.3); the form with a date is as good as none.
fn retry_after(value: &str) -> Option<Duration> {
    let seconds: u64 = value.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// A connection error with what a person can do about it.
fn explain(error: &Error) -> String {
    let text = error.to_string();
    let hint = if ["UnknownIssuer", "BadSignature", "CaUsedAsEndEntity"]
        .iter()
        .any(|word| text.contains(word))
    {
        "; its certificate is not the one in the certificate file, nor signed by it: copy it from \
         the Pi-hole again (/etc/pihole/tls_ca.crt)"
    } else if text.contains("not valid for name") {
        "; use the name of its certificate in url (https://pi.hole), and set address"
    } else if text.contains("not valid yet") || text.contains("expired") {
        "; is the clock right on both sides?"
    } else if text.contains("host not found") || text.contains("lookup") {
        "; set address to the Pi-hole's IP address"
    } else if text.contains("refused") {
        "; is its web interface on (webserver.port)?"
    } else {
        ""
    };
    format!("{}{hint}", printable(text.as_bytes(), 300))
}

/// Names are looked up as ever, or not at all.
#[derive(Debug)]
struct Address(Option<IpAddr>);

impl Resolver for Address {
    fn resolve(
        &self,
        uri: &Uri,
        config: &AgentConfig,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let Some(ip) = self.0 else {
            return DefaultResolver::default().resolve(uri, config, timeout);
        };
        let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let mut found = self.empty();
        found.push(SocketAddr::new(ip, uri.port_u16().unwrap_or(usual)));
        Ok(found)
    }
}
