//! One message to one receiver: a file per kind.
//!
//! In: a target's settings, the alerts of the message. Out: [`Outcome`]. Runs on the
//! target's own thread, at most its `timeout_seconds`.
//!
//! Invariants: every text from the network is escaped for the receiver's own syntax; names
//! and addresses are written so that no program makes a link of them; the same message sent
//! again is known by its key, where the receiver can tell.

mod alertmanager;
mod chat;
mod command;
mod email;
mod matrix;
mod ntfy;
mod syslog;
mod webhook;

use std::path::{Path, PathBuf};

use ureq::http::Method;

use super::config::{Kind, Target};
use super::http;
use super::notice::Notice;
use super::{Outcome, config};
use crate::secret::{self, Secret};
use crate::web::{self, Sending};

/// Sends it.
pub(super) fn send(target: &Target, ca_file: &Path, notices: &[Notice]) -> Outcome {
    let send = match target.kind {
        Kind::Webhook => webhook::send,
        Kind::Slack | Kind::Discord | Kind::Teams | Kind::Mattermost => chat::send,
        Kind::Matrix => matrix::send,
        Kind::Ntfy => ntfy::send,
        Kind::Email => email::send,
        Kind::Alertmanager => alertmanager::send,
        Kind::Syslog => syslog::send,
        Kind::Command => command::send,
    };
    send(&To { target, ca_file: ca_file.to_owned() }, notices)
        .unwrap_or_else(|error| Outcome::later(format!("{error:#}")))
}

/// The receiver, with what belongs to it.
pub(super) struct To<'a> {
    target: &'a Target,
    ca_file: PathBuf,
}

impl To<'_> {
    fn secret(&self) -> anyhow::Result<Option<Secret>> {
        secret::read(&self.target.secret_file, &self.target.secret_env)
    }

    /// The address, wherever it is kept; checked, since a file may hold anything.
    fn url(&self, token: bool) -> anyhow::Result<String> {
        let kept = secret::read(&self.target.url_file, &self.target.url_env)?;
        let url = kept.map_or_else(|| self.target.url.clone(), |url| url.expose().to_owned());
        web::check_url(&url, token).map_err(|wanted| anyhow::anyhow!("its address: {wanted}"))?;
        Ok(url)
    }

    fn ca_file(&self) -> &Path {
        let own = &self.target.ca_file;
        if own.as_os_str().is_empty() { &self.ca_file } else { own }
    }

    /// JSON to an address.
    fn http(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: String,
    ) -> anyhow::Result<Outcome> {
        let https = url.starts_with("https:");
        let agent = web::agent(self.ca_file(), https, self.target.timeout())?;
        let mut all = vec![("content-type", "application/json".to_owned())];
        all.extend(headers);
        Ok(http::send(&agent, Sending { method, url, headers: all, body }))
    }
}

/// Names this message: the same when it is sent again.
fn key(notices: &[Notice]) -> String {
    let rows: Vec<String> = notices.iter().map(|n| n.row.to_string()).collect();
    // Of several the first and the count do: rows are told in order and settled together.
    match rows.as_slice() {
        [] => "agentmon-0".to_owned(),
        [one] => format!("agentmon-{one}"),
        [first, ..] => format!("agentmon-{first}-{}", rows.len()),
    }
}

/// `host:port` that was checked with the configuration.
fn server(target: &Target) -> anyhow::Result<(&str, u16)> {
    config::host_port(&target.server).ok_or_else(|| anyhow::anyhow!("server: want `host:port`"))
}
