//! One question to one endpoint.
//!
//! In: a tier, a question. Out: an [`Exchange`] with everything the audit wants, whatever came
//! of it. Blocks the thread of the models, at most the tier's `timeout_seconds`.

use std::path::Path;
use std::time::Duration;

use agentmon_core::time::Clock;
use ureq::http::Method;

use super::answer::Bad;
use super::config::{Api, Tier};
use super::prompt::Question;
use super::wire::{self, Usage};
use crate::secret;
use crate::web::{self, Sending};

/// Longest answer read.
const BODY_MAX: u64 = 512 * 1_024;
/// Longest wait an endpoint may ask for.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Its month's money is spent: asked again after this.
const SPENT_WAIT: Duration = Duration::from_secs(6 * 3_600);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The endpoint: down, busy, wrong key. Nothing else will do better for a while.
    Endpoint {
        /// For people.
        why: String,
        /// How long to leave it alone.
        wait: Option<Duration>,
    },
    /// The question was too long for it: a shorter one may do.
    TooLong,
    /// What it said is no answer.
    Bad(Bad),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Endpoint { why, .. } => f.write_str(why),
            Self::TooLong => f.write_str("the question is too long for the model"),
            Self::Bad(bad) => write!(f, "{bad}"),
        }
    }
}

/// What was said and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    /// The request's body.
    pub(super) request: String,
    /// The answer's body, as text.
    pub(super) response: String,
    pub(super) latency: Duration,
    /// As told, or estimated.
    pub(super) usage: Usage,
    /// The model's name as it calls itself.
    pub(super) answered: String,
    pub(super) text: Result<String, Failed>,
}

/// Asks.
pub(super) fn ask(tier: &Tier, ca_file: &Path, question: &Question, clock: &dyn Clock) -> Exchange {
    let request = wire::body(tier, question).to_string();
    resend(tier, ca_file, request, question.tokens(), clock)
}

/// Sends a body that was made before.
pub(super) fn resend(
    tier: &Tier,
    ca_file: &Path,
    request: String,
    tokens: u64,
    clock: &dyn Clock,
) -> Exchange {
    let begun = clock.mono();
    let answer = send(tier, ca_file, &request);
    let latency = clock.mono().since(begun);
    let mut exchange = Exchange {
        request,
        response: String::new(),
        latency,
        usage: Usage::default(),
        answered: String::new(),
        text: Err(Failed::TooLong),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            exchange.text = Err(Failed::Endpoint { why, wait: None });
            return exchange;
        }
    };
    exchange.response = String::from_utf8_lossy(&answer.body).into_owned();
    exchange.text = meaning(tier.api, &answer).map(|answer| {
        let estimate = Usage { read: tokens, cached: 0, written: answer.text.len() as u64 / 3 };
        exchange.usage = answer.usage.unwrap_or(estimate);
        exchange.answered = answer.model;
        answer.text
    });
    exchange
}

fn send(tier: &Tier, ca_file: &Path, request: &str) -> Result<web::Answer, String> {
    let say = |error: anyhow::Error| format!("{error:#}");
    let secret = secret::read(&tier.secret_file, &tier.secret_env).map_err(say)?;
    let own = &tier.ca_file;
    let ca_file = if own.as_os_str().is_empty() { ca_file } else { own };
    let url = format!("{}{}", tier.url.trim_end_matches('/'), wire::path(tier.api));
    let agent = web::agent(ca_file, url.starts_with("https:"), tier.timeout()).map_err(say)?;
    let mut headers = vec![("content-type", "application/json".to_owned())];
    if tier.api == Api::Messages {
        headers.push(("anthropic-version", wire::ANTHROPIC_VERSION.to_owned()));
    }
    if let Some(secret) = secret {
        headers.push(match tier.api {
            Api::Chat => ("authorization", format!("Bearer {}", secret.expose())),
            Api::Messages => ("x-api-key", secret.expose().to_owned()),
        });
    }
    let sending = Sending { method: Method::POST, url: &url, headers, body: request.to_owned() };
    web::call(&agent, sending, BODY_MAX)
}

fn meaning(api: Api, answer: &web::Answer) -> Result<wire::Answer, Failed> {
    if answer.body.len() as u64 > BODY_MAX {
        return Err(Failed::Bad(Bad::TooLong));
    }
    if (200..300).contains(&answer.status) {
        return wire::read(api, &answer.body).map_err(Failed::Bad);
    }
    let complaint = wire::complaint(&answer.body);
    if complaint.too_long || answer.status == 413 {
        return Err(Failed::TooLong);
    }
    let why = match complaint.text.as_str() {
        "" => format!("the endpoint answers {}", answer.status),
        text => format!("the endpoint answers {}: {text}", answer.status),
    };
    let asked = answer.retry_after.map(|wait| wait.min(WAIT_MAX));
    let wait = if complaint.spent { Some(SPENT_WAIT) } else { asked };
    Err(Failed::Endpoint { why, wait })
}
