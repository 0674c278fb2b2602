//! A file made as the Python program makes it (schema 4), and older and broken ones.

use super::*;

/// 2026-11-20T10:00:00Z.
const FIRST: i64 = 1_795_168_800;

struct File(tempfile::TempDir);

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("events.db")
    }

    fn run(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    fn new() -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.run(
            "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied_at TIMESTAMP);
             INSERT INTO schema_version VALUES (4, '2026-05-17 10:00:00');
             CREATE TABLE dns_events (id VARCHAR PRIMARY KEY, timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
                client VARCHAR NOT NULL, domain VARCHAR NOT NULL, query_type VARCHAR NOT NULL,
                blocked BOOLEAN NOT NULL, upstream VARCHAR, response_time_ms DOUBLE);
             CREATE TABLE connection_events (id VARCHAR PRIMARY KEY, timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
                client VARCHAR NOT NULL, src_port INTEGER NOT NULL, dst_ip VARCHAR NOT NULL,
                dst_port INTEGER NOT NULL, protocol VARCHAR NOT NULL, bytes_sent BIGINT DEFAULT 0,
                bytes_recv BIGINT DEFAULT 0, duration_seconds DOUBLE, dns_domain VARCHAR);
             CREATE TABLE alerts (id VARCHAR PRIMARY KEY, domain VARCHAR, false_positive BOOLEAN DEFAULT FALSE);
             CREATE TABLE pending_tune_actions (id VARCHAR PRIMARY KEY, status VARCHAR);",
        );
        file
    }

    /// A question each ten minutes from `FIRST` on.
    fn questions(&self, from: i64, count: i64) {
        self.run(&format!(
            "INSERT INTO dns_events SELECT 'q' || n, make_timestamptz(({FIRST} + n * 600) * 1000000), '192.0.2.10',
                'n' || n || '.example.com', 'AAAA', n % 5 = 0, '198.51.100.53#53', 12.5
             FROM range({from}, {from} + {count}) r(n)"
        ));
    }

    fn import(&self, store: &mut Store, span: Span) -> Summary {
        self.import_knowing(&["nas"], store, span)
    }

    fn import_knowing(&self, names: &[&str], store: &mut Store, span: Span) -> Summary {
        let database = Database::open(&self.path()).unwrap();
        let address = "192.0.2.100".parse().unwrap();
        let names = names.iter().map(|name| ((*name).to_owned(), address)).collect();
        let config = Tier0Config::default();
        let mut send = |batch: agentmon_core::wire::Batch| Ok(store.take(&batch));
        let lists = (Blocklist::default(), "");
        python(&database, &names, &config, lists, span, &|_| {}, &mut send).unwrap()
    }
}

/// What a hub keeps: by epoch the events by number.
#[derive(Default)]
struct Store(HashMap<u64, HashMap<u64, Event>>);

impl Store {
    fn take(&mut self, batch: &agentmon_core::wire::Batch) -> u64 {
        let known = self.0.entry(batch.epoch).or_default();
        let mut new = 0;
        for (seq, event) in (batch.first_seq..).zip(&batch.events) {
            let event = agentmon_core::wire::decode_event(event).unwrap();
            new += u64::from(known.insert(seq, event).is_none());
        }
        new
    }

    fn bodies(&self) -> Vec<Event> {
        let mut all: Vec<Event> = self.0.values().flat_map(HashMap::values).cloned().collect();
        all.retain(|event| !matches!(event.body, Body::Finding(_)));
        all.sort_by_key(|event| event.time);
        all
    }
}

#[test]
fn questions_and_connections_come_over() {
    let file = File::new();
    file.questions(0, 10);
    file.run(&format!(
        "INSERT INTO connection_events VALUES
            ('c1', make_timestamptz({FIRST}000000), 'nas', 40000, '203.0.113.9', 443, 'TCP', 1200, 34000, 41.5, 'x.example'),
            ('c2', make_timestamptz({FIRST}000001), '192.0.2.10', 40001, '203.0.113.9', 443, 'tcp', 0, 0, NULL, NULL),
            ('c3', make_timestamptz({FIRST}000002), 'who', 1, '203.0.113.9', 443, 'tcp', 0, 0, NULL, NULL),
            ('c4', make_timestamptz({FIRST}000003), '192.0.2.10', 1, 'nowhere', 443, 'tcp', 0, 0, NULL, NULL),
            ('c5', make_timestamptz({FIRST}000004), '192.0.2.10', 1, '203.0.113.9', 70000, 'tcp', 0, 0, NULL, NULL);
         INSERT INTO alerts VALUES ('a', 'cdn.example.com', true), ('b', 'evil.example', false);
         INSERT INTO pending_tune_actions VALUES ('t', 'pending'), ('u', 'approved');"
    ));
    let mut store = Store::default();
    let s = file.import(&mut store, Span::default());
    assert_eq!((s.version, s.rows, s.new_events, s.bad, s.nameless), (4, 15, 12, 2, 1));
    assert_eq!(
        (s.unknown.as_slice(), s.alerts, s.proposals),
        (["who".to_owned()].as_slice(), 2, 1)
    );
    assert_eq!(s.dismissed, ["cdn.example.com"]);
    let events = store.bodies();
    let question = events.iter().find_map(|event| match &event.body {
        Body::Dns(dns) => Some((event.time, dns.clone())),
        _ => None,
    });
    let (time, dns) = question.unwrap();
    assert_eq!(
        (time, dns.name.as_str(), dns.qtype),
        (Timestamp::from_secs(FIRST), "n0.example.com", 28)
    );
    assert_eq!((dns.status, dns.latency_us), (DnsStatus::Blocked, Some(12_500)));
    let flow = events.iter().find_map(|event| match &event.body {
        Body::Flow(flow) if flow.volume.is_some() => Some(flow.clone()),
        _ => None,
    });
    let flow = flow.unwrap();
    assert_eq!((flow.src.ip.to_string(), flow.duration_ms), ("192.0.2.100".into(), Some(41_500)));
    assert_eq!(flow.volume.map(|v| (v.bytes_out, v.bytes_in)), Some((1_200, 34_000)));
}

#[test]
fn again_grown_and_with_its_oldest_rows_deleted() {
    let file = File::new();
    file.questions(0, 300);
    let mut store = Store::default();
    assert_eq!(file.import(&mut store, Span::default()).new_events, 300);
    assert_eq!(file.import(&mut store, Span::default()).new_events, 0);
    file.questions(300, 50);
    assert_eq!(file.import(&mut store, Span::default()).new_events, 50);
    file.run("DELETE FROM dns_events WHERE id IN (SELECT 'q' || n FROM range(0, 203) r(n))");
    assert_eq!(file.import(&mut store, Span::default()).new_events, 0);
    assert_eq!(store.bodies().len(), 350);
}

/// First without the address of a client, then with it: each row once.
#[test]
fn an_address_that_becomes_known_later() {
    let file = File::new();
    file.questions(0, 40);
    file.run("UPDATE dns_events SET client = 'nas' WHERE id IN ('q1', 'q2', 'q7', 'q30')");
    let mut store = Store::default();
    let first = file.import_knowing(&[], &mut store, Span::default());
    assert_eq!((first.new_events, first.nameless), (36, 4));
    let second = file.import(&mut store, Span::default());
    assert_eq!((second.new_events, second.nameless), (4, 0));
    let names = store.bodies().into_iter().filter_map(|event| match event.body {
        Body::Dns(dns) => Some(dns.name.as_str().to_owned()),
        _ => None,
    });
    assert_eq!(names.collect::<std::collections::HashSet<_>>().len(), 40);
}

#[test]
fn only_the_wanted_times() {
    let file = File::new();
    file.questions(0, 12);
    let since = Some(Timestamp::from_secs(FIRST + 3_600));
    let s = file.import(&mut Store::default(), Span { since, until: None });
    assert_eq!((s.new_events, s.passed), (6, 6));
}

#[test]
fn an_older_schema_has_no_connections() {
    let file = File::new();
    file.questions(0, 3);
    file.run("DROP TABLE connection_events; DROP TABLE alerts; DROP TABLE pending_tune_actions; UPDATE schema_version SET version = 1");
    let s = file.import(&mut Store::default(), Span::default());
    assert_eq!((s.version, s.new_events, s.alerts), (1, 3, 0));
}

#[test]
fn what_is_no_such_file_is_said() {
    let error = |path: &Path| format!("{:#}", Database::open(path).unwrap_err());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    assert!(error(&path).contains("not a file"));
    std::fs::write(&path, "no database").unwrap();
    assert!(error(&path).contains("x.db"));
    let other = dir.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (a INTEGER)").unwrap();
    assert!(error(&other).contains("not the events.db"));
}
