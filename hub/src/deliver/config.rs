//! Who is told of alerts, and how: `[deliver]` in `hub.toml`.
//!
//! In: a table. Out: checked targets, or which key is wrong and what is allowed. Secrets are
//! never values here: a file or an environment variable is named, and read when it is used.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use agentmon_core::finding::Severity;
use serde::{Deserialize, Serialize};

use super::quiet::Quiet;

/// Most targets; each has a thread.
pub const TARGETS_MAX: usize = 32;
/// Most receivers of one e-mail.
const RECEIVERS_MAX: usize = 50;

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who is told.
    pub targets: Vec<Target>,
    /// The certificates trusted for targets that have no `ca_file` of their own.
    pub ca_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { targets: Vec::new(), ca_file: "/etc/ssl/certs/ca-certificates.crt".into() }
    }
}

/// What kind of receiver it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// JSON by POST, signed.
    #[default]
    Webhook,
    /// Slack's incoming webhook.
    Slack,
    /// Discord's webhook.
    Discord,
    /// A Teams workflow that takes an Adaptive Card.
    Teams,
    /// Mattermost's incoming webhook.
    Mattermost,
    /// A room of a Matrix home server.
    Matrix,
    /// A topic of an ntfy server.
    Ntfy,
    /// SMTP.
    Email,
    /// Prometheus' Alertmanager.
    Alertmanager,
    /// CEF in a syslog message.
    Syslog,
    /// A program of this machine.
    Command,
}

/// How an e-mail travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailTls {
    /// Begins in the clear and must change to TLS (RFC 3207).
    #[default]
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Tls,
    /// In the clear: only to this machine itself.
    None,
}

/// How a syslog message travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// One datagram each (RFC 5426).
    #[default]
    Udp,
    /// A connection, octets counted (RFC 6587).
    Tcp,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// What `status` and logs call it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Alerts below are not told.
    pub min_severity: Severity,
    /// Only alerts of these rules; empty: of all.
    pub rules: Vec<String>,
    /// From this severity on nothing waits for the morning or for company.
    pub urgent: Severity,
    /// `22:00-07:00` in this machine's time zone: only what is urgent is told then.
    pub quiet: Quiet,
    /// Alerts are gathered for so long and told together; 0: at once.
    pub digest_seconds: u64,
    /// Told only when nobody has acknowledged it for so long; 0: at once.
    pub escalate_seconds: u64,
    /// Most messages in a minute; what is beyond is told together.
    pub messages_per_minute: u32,
    /// Most alerts in one message.
    pub alerts_per_message: usize,
    /// What could not be told for so long is given up, and counted.
    pub keep_seconds: u64,
    /// One message must be taken within this time.
    pub timeout_seconds: u64,

    /// Address: of the webhook, the ntfy server, the home server, the Alertmanager.
    pub url: String,
    /// Or a file that holds it, where the address itself is the secret.
    pub url_file: PathBuf,
    /// Or the environment variable that holds it.
    pub url_env: String,
    /// A file with the secret: signing key, token or password.
    pub secret_file: PathBuf,
    /// Or the environment variable that holds it.
    pub secret_env: String,
    /// Trusted certificates (PEM) instead of `deliver.ca_file`.
    pub ca_file: PathBuf,

    /// ntfy's topic; Matrix' room id.
    pub topic: String,
    /// `host:port` of the mail server or the syslog receiver.
    pub server: String,
    /// How a mail travels.
    pub tls: MailTls,
    /// How a syslog message travels.
    pub transport: Transport,
    /// Log in at the mail server, or at ntfy, by this name; with the secret as the password.
    pub user: String,
    /// The mail's sender.
    pub from: String,
    /// The mail's receivers.
    pub to: Vec<String>,
    /// Program and arguments; the alerts come on its standard input as JSON.
    pub command: Vec<String>,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: Kind::default(),
            min_severity: Severity::Medium,
            rules: Vec::new(),
            urgent: Severity::Critical,
            quiet: Quiet::default(),
            digest_seconds: 0,
            escalate_seconds: 0,
            messages_per_minute: 20,
            alerts_per_message: 50,
            keep_seconds: 7 * 86_400,
            timeout_seconds: 10,
            url: String::new(),
            url_file: PathBuf::new(),
            url_env: String::new(),
            secret_file: PathBuf::new(),
            secret_env: String::new(),
            ca_file: PathBuf::new(),
            topic: String::new(),
            server: String::new(),
            tls: MailTls::default(),
            transport: Transport::default(),
            user: String::new(),
            from: String::new(),
            to: Vec::new(),
            command: Vec::new(),
        }
    }
}

type Wrong = (&'static str, String);

fn wrong<T>(key: &'static str, wanted: &str) -> Result<T, Wrong> {
    Err((key, wanted.to_owned()))
}

impl Target {
    /// Whether an alert is for this target.
    #[must_use]
    pub fn wants(&self, severity: Severity, rule: &str) -> bool {
        severity >= self.min_severity
            && (self.rules.is_empty() || self.rules.iter().any(|r| r == rule))
    }

    /// For one message.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// How long a person has to acknowledge before this target is told.
    #[must_use]
    pub const fn escalates(&self) -> Duration {
        Duration::from_secs(self.escalate_seconds)
    }

    fn check(&self) -> Result<(), Wrong> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(fine) {
            return wrong("name", "want 1 to 64 letters, digits, `-` and `_`");
        }
        let within = |key, n: u64, from: u64, to: u64| {
            if (from..=to).contains(&n) {
                return Ok(());
            }
            Err((key, format!("want {from} to {to}")))
        };
        within("digest_seconds", self.digest_seconds, 0, 7 * 86_400)?;
        within("escalate_seconds", self.escalate_seconds, 0, 7 * 86_400)?;
        within("messages_per_minute", self.messages_per_minute.into(), 1, 6_000)?;
        within("alerts_per_message", self.alerts_per_message as u64, 1, 500)?;
        within("keep_seconds", self.keep_seconds, 60, 90 * 86_400)?;
        within("timeout_seconds", self.timeout_seconds, 1, 120)?;
        self.check_secrets()?;
        match self.kind {
            Kind::Webhook | Kind::Alertmanager => self.check_url(),
            Kind::Slack | Kind::Discord | Kind::Teams | Kind::Mattermost => self.check_chat(),
            Kind::Matrix | Kind::Ntfy => self.check_topic(),
            Kind::Email => self.check_mail(),
            Kind::Syslog => self.check_server(),
            Kind::Command => self.check_command(),
        }
    }

    fn check_secrets(&self) -> Result<(), Wrong> {
        let ways = |file: &PathBuf, env: &str| {
            usize::from(!file.as_os_str().is_empty()) + usize::from(!env.is_empty())
        };
        if ways(&self.secret_file, &self.secret_env) > 1 {
            return wrong("secret_env", "want either `secret_file` or `secret_env`");
        }
        if ways(&self.url_file, &self.url_env) + usize::from(!self.url.is_empty()) > 1 {
            return wrong("url", "want one of `url`, `url_file` and `url_env`");
        }
        Ok(())
    }

    fn has_url(&self) -> bool {
        !(self.url.is_empty() && self.url_file.as_os_str().is_empty() && self.url_env.is_empty())
    }

    fn has_secret(&self) -> bool {
        !(self.secret_file.as_os_str().is_empty() && self.secret_env.is_empty())
    }

    fn check_url(&self) -> Result<(), Wrong> {
        if !self.has_url() {
            return wrong("url", "want an address, or `url_file` or `url_env` that holds it");
        }
        if self.url.is_empty() {
            return Ok(());
        }
        crate::web::check_url(&self.url, self.has_secret()).map_err(|e| ("url", e))
    }

    fn check_chat(&self) -> Result<(), Wrong> {
        if !self.url.is_empty() {
            return wrong(
                "url",
                "who knows this address may write there, so it is a secret: \
                 want it in a file named by `url_file`, or in the variable named by `url_env`",
            );
        }
        self.check_url()
    }

    fn check_topic(&self) -> Result<(), Wrong> {
        self.check_url()?;
        if self.topic.is_empty() || self.topic.len() > 255 {
            let wanted = match self.kind {
                Kind::Matrix => "want the room's id, as `!abc:example.org`",
                _ => "want the topic's name",
            };
            return wrong("topic", wanted);
        }
        if self.kind == Kind::Matrix && !self.has_secret() {
            return wrong("secret_file", "want a file with the access token");
        }
        Ok(())
    }

    fn check_server(&self) -> Result<(), Wrong> {
        match host_port(&self.server) {
            Some(_) => Ok(()),
            None => wrong("server", "want `host:port`, as `mail.example.net:587`"),
        }
    }

    fn check_mail(&self) -> Result<(), Wrong> {
        self.check_server()?;
        let local = host_port(&self.server).is_some_and(|(host, _)| crate::web::is_here(host));
        if self.tls == MailTls::None && !local {
            return wrong("tls", "want `starttls` or `tls` for a server that is not this machine");
        }
        if self.from.parse::<lettre::message::Mailbox>().is_err() {
            return wrong("from", "want an address, as `agentmon <agentmon@example.net>`");
        }
        if self.to.is_empty() || self.to.len() > RECEIVERS_MAX {
            return Err(("to", format!("want 1 to {RECEIVERS_MAX} addresses")));
        }
        if let Some(bad) = self.to.iter().find(|to| to.parse::<lettre::message::Mailbox>().is_err())
        {
            return Err(("to", format!("`{bad}` is no address")));
        }
        if self.user.is_empty() == self.has_secret() {
            return wrong("user", "want `user` and `secret_file` (or `secret_env`), or neither");
        }
        Ok(())
    }

    fn check_command(&self) -> Result<(), Wrong> {
        match self.command.first() {
            Some(program) if program.starts_with('/') => Ok(()),
            _ => wrong("command", "want the program's absolute path, then its arguments"),
        }
    }
}

/// `host:port`, `[::1]:port`.
pub(super) fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if host.is_empty() || (bare.is_none() && host.contains(':')) {
        return None;
    }
    Some((bare.unwrap_or(host), port.parse().ok().filter(|p| *p > 0)?))
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        if self.targets.len() > TARGETS_MAX {
            return Err(("deliver.targets".into(), format!("at most {TARGETS_MAX} targets")));
        }
        let mut names = BTreeSet::new();
        for (i, target) in self.targets.iter().enumerate() {
            let at = |key: &str| format!("deliver.targets[{i}].{key}");
            target.check().map_err(|(key, wanted)| (at(key), wanted))?;
            if !names.insert(&target.name) {
                return Err((at("name"), "there is another target of that name".into()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key that is refused, or `ok`.
    #[track_caller]
    fn check(toml: &str, want: &str) {
        let target = match toml::from_str::<Target>(toml) {
            Ok(target) => target,
            Err(error) => panic!("{error}"),
        };
        let config = Config { targets: vec![target], ..Config::default() };
        let got = config.validate().map_or_else(|(key, _)| key, |()| "ok".to_owned());
        let want =
            if want == "ok" { want.to_owned() } else { format!("deliver.targets[0].{want}") };
        assert_eq!(got, want, "{toml}");
    }

    #[test]
    fn what_a_target_needs() {
        check("name = 'a'\nurl = 'https://hook.example.net/x'", "ok");
        check("name = 'a b'\nurl = 'https://hook.example.net/x'", "name");
        check("name = 'a'", "url");
        check("name = 'a'\nurl = 'ftp://hook.example.net/x'", "url");
        check("name = 'a'\nurl = 'https://u:p@hook.example.net/x'", "url");
        check("name = 'a'\nurl = 'http://192.0.2.1/x'", "ok");
        // A signature protects the content, but a token must not travel in the clear.
        check("name='a'\nkind='ntfy'\nurl='http://192.0.2.1'\ntopic='t'\nsecret_env='T'", "url");
        check("name='a'\nkind='ntfy'\nurl='http://127.0.0.1'\ntopic='t'\nsecret_env='T'", "ok");
        check("name = 'a'\nurl = 'https://h.example/x'\nurl_file = '/x'", "url");
        check("name = 'a'\nkind = 'slack'\nurl = 'https://h.example/x'", "url");
        check("name = 'a'\nkind = 'slack'\nurl_file = '/etc/agentmon/slack'", "ok");
        check("name = 'a'\nkind = 'ntfy'\nurl = 'https://ntfy.example'", "topic");
        check("name = 'a'\nkind = 'ntfy'\nurl = 'https://ntfy.example'\ntopic = 'home'", "ok");
        check(
            "name = 'a'\nkind = 'matrix'\nurl = 'https://m.example'\ntopic = '!r:m'",
            "secret_file",
        );
        check("name = 'a'\nkind = 'command'\ncommand = ['notify']", "command");
        check("name = 'a'\nkind = 'command'\ncommand = ['/usr/bin/notify']", "ok");
        check("name = 'a'\nkind = 'syslog'\nserver = 'log.example:514'", "ok");
        check("name = 'a'\nkind = 'syslog'\nserver = 'log.example'", "server");
        check("name = 'a'\nurl = 'https://h.example'\ntimeout_seconds = 0", "timeout_seconds");
    }

    #[test]
    fn what_a_mail_needs() {
        let mail = |more: &str| {
            format!("name='m'\nkind='email'\nfrom='a@example.net'\nto=['b@example.net']\n{more}")
        };
        check(&mail("server='mail.example:587'"), "ok");
        check(&mail("server='mail.example:587'\ntls='none'"), "tls");
        check(&mail("server='[::1]:25'\ntls='none'"), "ok");
        check(&mail("server='mail.example:587'\nuser='me'"), "user");
        check(&mail("server='mail.example:587'\nsecret_env='P'"), "user");
        check(&mail("server='mail.example:587'\nuser='me'\nsecret_env='P'"), "ok");
        check("name='m'\nkind='email'\nserver='m:25'\nfrom='a\\nb'\nto=['b@e.net']", "from");
    }
}
