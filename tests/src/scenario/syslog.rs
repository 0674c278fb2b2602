//! Scenarios of the syslog receiver: messages of other machines instead of events, since what
//! these are about is that none came, or came late.
//!
//! ```text
//! tests/scenarios/NAME/messages.txt   SECOND SENDER MESSAGE, oldest first
//! ```

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::event::Body;
use agentmon_core::finding::Finding;
use agentmon_core::time::{Mono, Timestamp};
use agentmon_router::collect::syslog::Config;
use agentmon_router::collect::syslog::scene::Scene;
use agentmon_router::localtime::ZoneSetting;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Variant;
use super::script::BEGIN_SECONDS;
use super::variant::LATE_MS_MAX;

/// How long it goes on after the last message.
const QUIET_SECONDS: u64 = 600;

/// One message, and when it arrives.
#[derive(Clone, Debug)]
pub(super) struct Message {
    millis: u64,
    peer: IpAddr,
    text: String,
}

/// Reads `messages.txt`.
pub(super) fn read(text: &str, file: &str) -> Vec<Message> {
    let line = |(n, line): (usize, &str)| {
        let mut words = line.splitn(3, ' ');
        let second = words.next().and_then(|word| word.parse::<u64>().ok());
        let peer = words.next().and_then(|word| word.parse().ok());
        let (Some(second), Some(peer), Some(text)) = (second, peer, words.next()) else {
            panic!("{file}:{}: want SECOND SENDER MESSAGE", n + 1);
        };
        Message { millis: second * 1_000, peer, text: text.to_owned() }
    };
    text.lines().enumerate().map(line).collect()
}

/// What the receiver finds, and how many seconds after the first message. Not with a clock
/// that is wrong or jumps: messages carry dates, and that they do not fit the receiver's clock
/// is just what it is to find.
pub(super) fn play(messages: &[Message], variant: Variant, seed: u64) -> Vec<(u64, Finding)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let late = if variant == Variant::Shuffled { LATE_MS_MAX } else { 0 };
    let copies = if variant == Variant::Doubled { 2 } else { 1 };
    let mut arrivals = Vec::new();
    for message in messages {
        let millis = message.millis + rng.random_range(0..=late);
        arrivals.extend(std::iter::repeat_n((millis, message), copies));
    }
    arrivals.sort_by_key(|(millis, _)| *millis);
    let utc = ZoneSetting::Fixed(0);
    let mut scene = Scene::new(&Config { timezone: utc, ..Config::default() });
    let at = |millis: u64| {
        let passed = Duration::from_millis(millis);
        (Timestamp::from_secs(BEGIN_SECONDS).plus(passed), Mono::from_nanos(0).plus(passed))
    };
    let (mut arrivals, mut found, mut out) = (arrivals.into_iter().peekable(), Vec::new(), vec![]);
    let end = messages.last().map_or(0, |message| message.millis / 1_000) + QUIET_SECONDS;
    for second in 0..end {
        while let Some((millis, message)) = arrivals.next_if(|(ms, _)| *ms < (second + 1) * 1_000) {
            scene.message((message.peer, message.text.as_bytes()), at(millis), &mut out);
        }
        scene.second(at((second + 1) * 1_000), &mut out);
        found.extend(out.drain(..).filter_map(|event| match event.body {
            Body::Finding(finding) => Some((second, finding)),
            _ => None,
        }));
    }
    found
}
