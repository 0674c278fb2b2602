//! The scripts behind `tests/scenarios/*/messages.txt`: what machines with a resolver send by
//! syslog (RFC 3164) in the course of an hour.
//!
//! Senders: .53 a Pi-hole, .1 the router before it.

use std::fmt::Write as _;

const PIHOLE: &str = "192.168.77.53";
const ROUTER: &str = "192.168.77.1";
const MINUTE: u64 = 60;

/// Writes a scenario's messages.
pub type Write = fn() -> String;

/// Name and script of each.
pub const ALL: [(&str, Write); 4] = [
    ("log-late", log_late),
    ("log-late-relay", log_late_relay),
    ("log-silent", log_silent),
    ("log-silent-night", log_silent_night),
];

/// Messages under construction: second, order, text.
#[derive(Default)]
struct Messages(Vec<(u64, String)>);

impl Messages {
    /// `sender` answers a question at `second`; its messages arrive at `arrives`.
    fn asked(&mut self, sender: &str, (second, arrives): (u64, u64)) {
        let (hour, minute, second) = (8 + second / 3_600, second / 60 % 60, second % 60);
        let serial = self.0.len() + 1;
        let name = ["www.example.com", "api.example.net", "news.example.org"][serial % 3];
        let head = format!("<30>Jun  1 {hour:02}:{minute:02}:{second:02} dns dnsmasq[77]: ");
        let client = "192.168.77.24";
        for what in
            [format!("query[A] {name} from {client}"), format!("cached {name} is 198.51.100.10")]
        {
            let line = format!("{arrives} {sender} {head}{serial} {client}/50000 {what}");
            self.0.push((arrives, line));
        }
    }

    /// Every so many seconds within a span, on time.
    fn asks(&mut self, sender: &str, span: std::ops::Range<u64>, step: usize) {
        span.step_by(step).for_each(|second| self.asked(sender, (second, second)));
    }

    fn text(mut self) -> String {
        self.0.sort_by_key(|(second, _)| *second);
        self.0.iter().fold(String::new(), |mut text, (_, line)| {
            _ = writeln!(text, "{line}");
            text
        })
    }
}

/// The Pi-hole's log stops after twenty minutes; the router's goes on.
fn log_silent() -> String {
    let mut messages = Messages::default();
    messages.asks(PIHOLE, 0..20 * MINUTE, 17);
    messages.asks(ROUTER, 5..70 * MINUTE, 97);
    messages.text()
}

/// Everybody sleeps: one question in half an hour, less a little.
fn log_silent_night() -> String {
    let mut messages = Messages::default();
    messages.asks(PIHOLE, 0..20 * MINUTE, 17);
    messages.asks(PIHOLE, 20 * MINUTE..110 * MINUTE, 29 * 60);
    messages.asks(ROUTER, 5..100 * MINUTE, 97);
    messages.text()
}

/// After a power cut the Pi-hole's clock is 20 minutes behind, until it asks for the time.
fn log_late() -> String {
    let mut messages = Messages::default();
    messages.asks(PIHOLE, 0..20 * MINUTE, 17);
    for second in (25 * MINUTE..35 * MINUTE).step_by(11) {
        messages.asked(PIHOLE, (second - 20 * MINUTE, second));
    }
    messages.asks(PIHOLE, 35 * MINUTE..45 * MINUTE, 17);
    messages.asks(ROUTER, 5..45 * MINUTE, 97);
    messages.text()
}

/// A line is cut for a quarter of an hour; what was kept meanwhile comes within half a minute.
fn log_late_relay() -> String {
    let mut messages = Messages::default();
    messages.asks(PIHOLE, 0..20 * MINUTE, 17);
    let away = 20 * MINUTE..35 * MINUTE;
    for (nth, second) in (0..).zip(away.step_by(30)) {
        messages.asked(PIHOLE, (second, 35 * MINUTE + nth));
    }
    messages.asks(PIHOLE, 36 * MINUTE..45 * MINUTE, 17);
    messages.asks(ROUTER, 5..45 * MINUTE, 97);
    messages.text()
}
