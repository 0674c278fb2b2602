//! Steady surfing with names that occur once: each acknowledged name is an obligation that
//! must stand at the hub exactly once in the end.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use agentmon_core::time::{Clock as _, SystemClock};

use super::dns;
use super::wait::pause;
use super::world::LAN;

/// Asks for `PREFIX-0.example.com`, `PREFIX-1.example.com`, ... until stopped.
#[derive(Debug)]
pub struct Surfer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Surfer {
    /// One new name each `gap_ms` milliseconds, each waited for.
    #[must_use]
    pub fn start(prefix: &str, gap_ms: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, prefix) = (Arc::clone(&stop), prefix.to_owned());
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !stopping.load(Ordering::Relaxed) {
                let reply = dns::ask("lan", LAN, &format!("{prefix}-{count}.example.com"), dns::A);
                assert_eq!(reply.addresses.len(), 1, "{prefix}-{count} is answered");
                count += 1;
                pause(gap_ms);
            }
            count
        });
        Self { stop, thread }
    }

    /// Ends it; how many names were asked for and answered.
    ///
    /// # Panics
    /// When a question was not answered: surfing must go on whatever agentmon does (C8).
    #[must_use]
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Appends `count` finished exchanges to a resolver log, as dnsmasq writes them with
/// `log-queries=extra`: `PREFIX-0.example.com` and so on. Faster than any client.
///
/// # Panics
/// When the log cannot be written.
pub fn write_log(log: &Path, prefix: &str, count: u64) {
    let mut text = String::new();
    let stamp = stamp();
    for n in 0..count {
        // Serial numbers far above those of the real resolver.
        let (serial, port) = (1_000_000 + n, 20_000 + n % 40_000);
        let begin = format!("{stamp} dnsmasq[1]: {serial} 192.168.77.2/{port}");
        let name = format!("{prefix}-{n}.example.com");
        text += &format!("{begin} query[A] {name} from 192.168.77.2\n");
        text += &format!("{begin} cached {name} is 198.51.100.10\n");
    }
    let mut file = File::options().append(true).create(true).open(log).expect("log opens");
    file.write_all(text.as_bytes()).expect("log is writable");
}

/// The moment now as dnsmasq stamps lines: `Nov 23 14:05:06`, in UTC as the lab runs.
fn stamp() -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = SystemClock.wall().secs();
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (_, month, day) = agentmon_core::time::civil_from_days(days);
    let month = usize::try_from(month).ok().and_then(|m| MONTHS.get(m - 1)).expect("a month");
    format!("{month} {day:2} {:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}
