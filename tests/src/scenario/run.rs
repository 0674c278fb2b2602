//! Reads a scenario and plays it through the tier-0 engine, or through the syslog receiver.

use std::path::{Path, PathBuf};

use agentmon_core::event::Event;
use agentmon_core::tier0::Engine;
use agentmon_core::tier0::blocklist::Config;
use agentmon_core::time::Timestamp;

use super::syslog::{self, Message};
use super::{Expect, Variant, judge};

/// One folder of `tests/scenarios`.
#[derive(Debug)]
pub struct Scenario {
    /// The folder's name.
    pub name: String,
    /// What must come of it.
    pub expect: Expect,
    told: Told,
}

/// What happens in it.
#[derive(Debug)]
enum Told {
    Events(Vec<Event>, Vec<u8>),
    Messages(Vec<Message>),
}

/// Every scenario, by name.
///
/// # Panics
/// When one cannot be read: with file, line and reason.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut folders: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    folders.sort();
    folders.iter().filter(|f| f.is_dir()).map(|f| Scenario::read(f)).collect()
}

impl Scenario {
    fn read(folder: &Path) -> Self {
        let text = |name: &str| {
            let file = folder.join(name);
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
        };
        let name = folder.file_name().expect("a folder's name").to_string_lossy().into_owned();
        assert!(text("about.md").len() > 80, "{name}/about.md says too little");
        let expect = toml::from_str(&text("expect.toml"));
        let expect = expect.unwrap_or_else(|e| panic!("{name}/expect.toml: {e}"));
        if folder.join("messages.txt").exists() {
            let file = format!("{name}/messages.txt");
            let messages = syslog::read(&text("messages.txt"), &file);
            assert!(!messages.is_empty(), "{file} is empty");
            return Self { name, expect, told: Told::Messages(messages) };
        }
        let read = |(n, line): (usize, &str)| -> Event {
            serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("{name}/events.ndjson:{}: {e}", n + 1))
        };
        let events: Vec<Event> = text("events.ndjson").lines().enumerate().map(read).collect();
        assert!(!events.is_empty(), "{name}/events.ndjson is empty");
        let in_order = events.windows(2).all(|pair| pair[0].time <= pair[1].time);
        assert!(in_order, "{name}/events.ndjson: not oldest first");
        let list = std::fs::read(folder.join("list.txt")).unwrap_or_default();
        Self { name, expect, told: Told::Events(events, list) }
    }

    /// Plays it; complaints come back, none when the verdict is the expected one.
    #[must_use]
    pub fn play(&self, variant: Variant, seed: u64) -> Vec<String> {
        match &self.told {
            Told::Events(events, list) => self.play_events((events, list), variant, seed),
            // See there.
            Told::Messages(_) if matches!(variant, Variant::Shifted(_) | Variant::Jumped(_)) => {
                Vec::new()
            }
            Told::Messages(messages) => judge(&self.expect, &syslog::play(messages, variant, seed)),
        }
    }

    fn play_events(
        &self,
        (events, list): (&[Event], &[u8]),
        variant: Variant,
        seed: u64,
    ) -> Vec<String> {
        let mut lists = Config::default().builder();
        let report = lists.list("scenario", 0.8, list);
        assert!(report.is_clean(), "{}/list.txt: {report}", self.name);
        let mut engine = Engine::new(&self.expect.settings, lists.build());
        let first = events.first().map_or(Timestamp::EPOCH, |e| e.time);
        let (mut found, mut new) = (Vec::new(), Vec::new());
        for step in variant.steps(events, seed) {
            match step.event {
                Some(mut event) => engine.on_event(&mut event, &mut new),
                None => engine.on_tick(step.clock, &mut new),
            }
            let after = step.truth.since(first).as_secs();
            found.extend(new.drain(..).map(|f| (after, f.finding)));
        }
        judge(&self.expect, &found)
    }
}
