//! The collector as a whole: a file that grows and rotates, lines in, deliveries out.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use agentmon_core::time::SimClock;

use super::*;
use crate::collect::{Outbox, State, Stop};

fn line(name: &str) -> String {
    format!(r#"{{"IP":"192.0.2.31","T":"2026-11-23T13:59:00Z","QH":"{name}","QT":"A"}}"#)
}

/// One run over what is there, going on from `checkpoint`: names, gaps, and the next one.
fn run(path: &Path, checkpoint: Option<Checkpoint>) -> (Vec<String>, Option<Checkpoint>, Context) {
    let config = Config { enabled: true, path: path.into(), from_start: true, poll_ms: 50 };
    config.validate().unwrap();
    let (outbox, deliveries) = Outbox::channel();
    let context = Context {
        outbox,
        stop: Stop::default(),
        clock: Arc::new(SimClock::at(Timestamp::from_secs(1_795_442_400))),
        counters: Counters::default(),
        state: State::default(),
    };
    let mut source = Source::new(config);
    if let Some(checkpoint) = &checkpoint {
        assert_eq!(source.checkpoint_key().as_ref(), Some(&checkpoint.key));
        source.restore(&checkpoint.value);
    }
    let counts = Counts::new(&context.counters);
    source.read_all(&context, &counts).unwrap();
    source.carry(&counts);
    source.deliver(&context).unwrap();
    context.state.set(source.state());
    let delivery = deliveries.recv().unwrap();
    let shown = |event: Event| match event.body {
        Body::Dns(dns) => dns.name.as_str().to_owned(),
        Body::Gap(gap) => gap.reason,
        other => panic!("{other:?}"),
    };
    (delivery.events.into_iter().map(shown).collect(), delivery.checkpoint, context)
}

#[test]
fn every_line_once_over_restarts_and_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("querylog.json");
    let write = |names: &[&str]| {
        let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        names.iter().for_each(|name| writeln!(file, "{}", line(name)).unwrap());
    };
    let (names, checkpoint, context) = run(&path, None);
    assert!(names.is_empty() && context.state.get().contains("is not there"));
    write(&["a.example", "b.example"]);
    let (names, checkpoint, context) = run(&path, checkpoint);
    assert_eq!(names, ["a.example", "b.example"]);
    assert!(context.state.get().contains("60 s late") || context.state.get().starts_with("ok"));
    write(&["c.example"]);
    std::fs::rename(&path, dir.path().join("querylog.json.1")).unwrap();
    write(&["d.example"]);
    let (names, checkpoint, _) = run(&path, checkpoint);
    assert_eq!(names, ["c.example", "d.example"]);
    assert!(run(&path, checkpoint).0.is_empty());
}

#[test]
fn long_answers_are_read_and_nonsense_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("querylog.json");
    let mut text =
        line("a.example").replace('}', &format!(",\"Answer\":\"{}\"}}", "B".repeat(87_384)));
    text.push_str("\n<html>\n\u{0}\u{1b}[2J\n[1]\n");
    text.push_str(&"x".repeat(1 << 20));
    text.push('\n');
    text.push_str(&line("b.example"));
    text.push_str("\n{\"half\":");
    std::fs::write(&path, text).unwrap();
    let (names, _, context) = run(&path, None);
    assert_eq!(names, ["a.example", "b.example"]);
    let counters = context.counters.snapshot();
    assert_eq!((counters["adguard.entries"], counters["adguard.bad_entry"]), (2, 3));
    assert_eq!(counters["drop.tail.line_too_long"], 1);
    assert_eq!(counters["adguard.imperfect_entry"], 1);
}
