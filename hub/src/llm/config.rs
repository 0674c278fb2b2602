//! Whom to ask for a second opinion: `[llm]` in `hub.toml`.
//!
//! In: a table. Out: checked settings, or which key is wrong and what is allowed. Both tiers
//! are off by default; keys are named by file or variable, never written here.

use std::path::PathBuf;
use std::time::Duration;

use agentmon_core::finding::Severity;
use serde::{Deserialize, Serialize};

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Alerts below are not asked about.
    pub min_severity: Severity,
    /// Most alerts in one question.
    pub batch: usize,
    /// How long an opinion holds for the same subject and facts.
    pub keep_hours: u64,
    /// The certificates trusted for tiers that have no `ca_file` of their own.
    pub ca_file: PathBuf,
    /// A model of one's own.
    pub tier1: Tier,
    /// A model of somebody else's, asked about what the first one could not settle.
    pub tier2: Tier,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_severity: Severity::Low,
            batch: 16,
            keep_hours: 168,
            ca_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            tier1: Tier::default(),
            tier2: Tier { timeout_seconds: 60, requests_per_day: 100, ..Tier::default() },
        }
    }
}

/// How an endpoint is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// `POST /v1/chat/completions`: llama.cpp, vLLM, SGLang, Ollama, LM Studio, `OpenAI`.
    #[default]
    Chat,
    /// `POST /v1/messages`: Anthropic.
    Messages,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tier {
    /// Whether it is asked.
    pub enabled: bool,
    /// How it is spoken to.
    pub api: Api,
    /// Its address up to and without `/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// A file with the key.
    pub secret_file: PathBuf,
    /// Or the environment variable that holds it.
    pub secret_env: String,
    /// Trusted certificates (PEM) instead of `llm.ca_file`.
    pub ca_file: PathBuf,
    /// An answer must be complete within this time.
    pub timeout_seconds: u64,
    /// Most tokens of an answer; 0: 100 for each alert and 200 more.
    pub max_tokens: u32,
    /// Below 0: not sent, as newer interfaces want it.
    pub temperature: f64,
    /// Most questions in a day (UTC); 0: as many as come.
    pub requests_per_day: u64,
    /// Most tokens in a day, read and written; 0: as many as come.
    pub tokens_per_day: u64,
    /// Most money in a day, in US dollars; 0: as much as it costs.
    pub usd_per_day: f64,
    /// US dollars for a million tokens read.
    pub usd_in: f64,
    /// US dollars for a million tokens read from the endpoint's cache.
    pub usd_cached: f64,
    /// US dollars for a million tokens written.
    pub usd_out: f64,
}

impl Default for Tier {
    fn default() -> Self {
        Self {
            enabled: false,
            api: Api::Chat,
            url: String::new(),
            model: String::new(),
            secret_file: PathBuf::new(),
            secret_env: String::new(),
            ca_file: PathBuf::new(),
            timeout_seconds: 30,
            max_tokens: 0,
            temperature: 0.0,
            requests_per_day: 0,
            tokens_per_day: 0,
            usd_per_day: 0.0,
            usd_in: 0.0,
            usd_cached: 0.0,
            usd_out: 0.0,
        }
    }
}

type Wrong = (String, String);

impl Tier {
    /// For one answer.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// What an answer costs, in millionths of a US dollar.
    #[must_use]
    pub fn cost(&self, usage: &super::wire::Usage) -> u64 {
        let fresh = usage.read.saturating_sub(usage.cached);
        let micro = tokens(fresh) * self.usd_in
            + tokens(usage.cached) * self.usd_cached
            + tokens(usage.written) * self.usd_out;
        // A price of nonsense was refused; what is left is small and not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let micro = micro.ceil() as u64;
        micro
    }

    fn check(&self, name: &str) -> Result<(), Wrong> {
        let at = |key: &str| format!("llm.{name}.{key}");
        let wrong = |key: &str, wanted: &str| Err((at(key), wanted.to_owned()));
        if !(1..=600).contains(&self.timeout_seconds) {
            return wrong("timeout_seconds", "want 1 to 600");
        }
        if self.max_tokens > 32_768 {
            return wrong("max_tokens", "want 0 to 32768");
        }
        let money = [
            ("usd_per_day", self.usd_per_day),
            ("usd_in", self.usd_in),
            ("usd_cached", self.usd_cached),
            ("usd_out", self.usd_out),
        ];
        for (key, value) in money {
            if !(0.0..=100_000.0).contains(&value) {
                return wrong(key, "want 0 to 100000 US dollars");
            }
        }
        if !(-1.0..=2.0).contains(&self.temperature) {
            return wrong("temperature", "want 0 to 2, or -1 to leave it out");
        }
        let both = !self.secret_file.as_os_str().is_empty() && !self.secret_env.is_empty();
        if both {
            return wrong("secret_env", "want either `secret_file` or `secret_env`");
        }
        if !self.enabled {
            return Ok(());
        }
        if self.model.is_empty() || self.model.len() > 200 {
            return wrong("model", "want the model's name at that endpoint");
        }
        let secret = !(self.secret_file.as_os_str().is_empty() && self.secret_env.is_empty());
        crate::web::check_url(&self.url, secret).map_err(|wanted| (at("url"), wanted))
    }
}

#[allow(clippy::cast_precision_loss, reason = "money, not identity")]
fn tokens(count: u64) -> f64 {
    count as f64
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key and what is allowed.
    pub fn validate(&self) -> Result<(), Wrong> {
        if !(1..=50).contains(&self.batch) {
            return Err(("llm.batch".into(), "want 1 to 50".into()));
        }
        if !(1..=8_760).contains(&self.keep_hours) {
            return Err(("llm.keep_hours".into(), "want 1 to 8760".into()));
        }
        if self.tier2.enabled && !self.tier1.enabled {
            let wanted = "the second tier is asked about what the first could not settle: \
                          want `tier1.enabled`, or this endpoint as the first tier";
            return Err(("llm.tier2.enabled".into(), wanted.into()));
        }
        self.tier1.check("tier1")?;
        self.tier2.check("tier2")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(toml: &str, want: &str) {
        let config: Config = toml::from_str(toml).unwrap();
        let got = config.validate().map_or_else(|(key, _)| key, |()| "ok".to_owned());
        assert_eq!(got, want, "{toml}");
    }

    #[test]
    fn what_makes_sense() {
        check("", "ok");
        check("batch = 0", "llm.batch");
        check("[tier1]\nenabled = true", "llm.tier1.model");
        check("[tier1]\nenabled = true\nmodel = 'm'", "llm.tier1.url");
        check("[tier1]\nenabled = true\nmodel = 'm'\nurl = 'http://192.0.2.1:8080'", "ok");
        check(
            "[tier1]\nenabled = true\nmodel = 'm'\nurl = 'http://192.0.2.1:8080'\nsecret_env = 'K'",
            "llm.tier1.url",
        );
        check(
            "[tier2]\nenabled = true\nmodel = 'm'\nurl = 'https://api.example'",
            "llm.tier2.enabled",
        );
        check("[tier1]\nusd_in = -1", "llm.tier1.usd_in");
        check("[tier1]\nusd_in = nan", "llm.tier1.usd_in");
    }

    #[test]
    fn what_an_answer_costs() {
        let tier = Tier { usd_in: 3.0, usd_cached: 0.3, usd_out: 15.0, ..Tier::default() };
        let usage = super::super::wire::Usage { read: 1_000, cached: 900, written: 10 };
        assert_eq!(tier.cost(&usage), 300 + 270 + 150);
    }
}
