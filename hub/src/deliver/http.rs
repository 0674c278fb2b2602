//! A POST or PUT to a receiver, and what its answer means.
//!
//! In: an address, headers, a body. Out: [`Outcome`]. Blocks the target's own thread. Answers:
//! RFC 9110 section 15, Retry-After section 10.2.3; 425 RFC 8470, 429 RFC 6585.

use std::time::Duration;

use agentmon_core::name::printable;
use ureq::Agent;

use super::Outcome;
use crate::web::{self, Sending};

/// Read of an answer, for its error text.
const ANSWER_MAX: u64 = 2_048;
/// Longest wait a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Sends it.
pub(super) fn send(agent: &Agent, sending: Sending<'_>) -> Outcome {
    match web::call(agent, sending, ANSWER_MAX) {
        Ok(answer) => meaning(answer.status, answer.retry_after, &printable(&answer.body, 200)),
        Err(why) => Outcome::later(why),
    }
}

/// What a status means for the message.
fn meaning(status: u16, wait: Option<Duration>, text: &str) -> Outcome {
    let said = if text.is_empty() {
        format!("the receiver answers {status}")
    } else {
        format!("the receiver answers {status}: {text}")
    };
    match status {
        200..=299 => Outcome::Sent,
        // This message will never do.
        400 | 413 | 415 | 422 => Outcome::Refused(said),
        _ => Outcome::Later { why: said, wait: wait.map(|w| w.min(RETRY_AFTER_MAX)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, want: &str) {
        let got = match meaning(status, Some(Duration::from_secs(1 << 40)), "x") {
            Outcome::Sent => "sent",
            Outcome::Refused(_) => "refused",
            Outcome::Later { wait, .. } => {
                assert_eq!(wait, Some(RETRY_AFTER_MAX));
                "later"
            }
        };
        assert_eq!(got, want, "{status}");
    }

    #[test]
    fn statuses() {
        check(200, "sent");
        check(204, "sent");
        check(301, "later");
        check(400, "refused");
        check(401, "later");
        check(404, "later");
        check(413, "refused");
        check(429, "later");
        check(500, "later");
        check(529, "later");
    }
}
