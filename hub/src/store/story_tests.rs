//! The view `story` over a real file: a question, its connection, the program and the device in
//! one row, whatever came late, changed its address, or speaks IPv6.

use agentmon_core::Event;
use agentmon_core::event::{
    Body, Connection, Device, DeviceSource, Direction, Endpoint, FlowPhase, Mac, Process,
    ProcessPhase, Program,
};
use agentmon_core::sample::ip;

use super::writer_tests::{Hub, at, dns, flow};

const MAC: Mac = Mac([0, 0, 0x5e, 0, 0x53, 9]);

fn sighting(s: i64, address: &str) -> Event {
    let seen = Device {
        mac: MAC,
        ip: ip(address),
        hostname: Some("studio".into()),
        iface: None,
        source: DeviceSource::Lease,
    };
    Event { time: at(s), body: Body::Device(seen) }
}

fn process(s: i64) -> Event {
    let program =
        |id, pid, name: &str| Program { id, pid, name: name.into(), ..Program::default() };
    let process = Process {
        phase: ProcessPhase::Start,
        program: program(7, 412, "curl"),
        ancestors: vec![program(6, 400, "claude-code")],
        host: "studio".into(),
        ..Process::default()
    };
    Event { time: at(s), body: Body::Process(Box::new(process)) }
}

/// As its host sees the connection that `flow(s, id, ..)` is to a router.
fn owned(s: i64, id: u64, client: &str, server: &str) -> Event {
    let connection = Connection {
        id,
        phase: FlowPhase::End,
        process: Some(7),
        pid: 412,
        name: Some("curl".into()),
        proto: 6,
        local: Endpoint::new(ip(client), 40_000 + (id % 1_000) as u16),
        remote: Endpoint::new(ip(server), 443),
        direction: Direction::Out,
        start: Some(at(s - 5)),
        duration_ms: Some(5_000),
        volume: None,
        user: None,
        container: None,
        how: "exec".into(),
        resolved: None,
    };
    Event { time: at(s), body: Body::Connection(Box::new(connection)) }
}

/// Program, its parent and host, device, name, seconds from question to connection, address.
const STORY: &str = "SELECT coalesce(string_agg(concat_ws(' ', coalesce(program, '?'), pid, parent, \
     host, coalesce(device, '?'), coalesce(name, '?'), \
     coalesce(epoch(time - asked)::INTEGER::VARCHAR, '?'), src), ', ' ORDER BY time, src), '') \
     FROM story";

const WHOLE: &str = "curl 412 claude-code studio studio a.example 2 192.0.2.9";

#[test]
fn one_row_tells_the_question_the_connection_the_program_and_the_device() {
    let lease = sighting(-90, "192.0.2.9");
    let ask = dns(-17, "192.0.2.9", "a.example", "203.0.113.1");
    let connect = flow(-10, 5, FlowPhase::End, "192.0.2.9", "203.0.113.1", 10);
    let own = owned(-10, 5, "192.0.2.9", "203.0.113.1");
    let begin = process(-20);
    let orders: [&[&[&Event]]; 3] = [
        &[&[&lease, &ask, &begin, &own, &connect]],
        // The router's record first, its question late, the host's last.
        &[&[&lease], &[&connect], &[&ask], &[&own], &[&begin]],
        &[&[&begin, &own], &[&lease, &connect, &ask]],
    ];
    for order in orders {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = Hub::open(dir.path());
        let mut seq = 1;
        for batch in order {
            let events: Vec<Event> = batch.iter().map(|event| (*event).clone()).collect();
            // A batch that is sent again changes nothing.
            hub.send(1, seq, &events);
            hub.send(1, seq, &events);
            seq += events.len() as u64;
            hub.writer.tick().unwrap();
        }
        assert_eq!(hub.one::<String>(STORY), WHOLE);
    }
}

#[test]
fn what_nobody_saw_stays_unknown_and_ports_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let connect = |s| flow(s, 5, FlowPhase::End, "192.0.2.8", "203.0.113.1", 10);
    // The program had the same ports an hour before.
    hub.send(1, 1, &[owned(-3_610, 5, "192.0.2.8", "203.0.113.1"), process(-3_620), connect(-10)]);
    assert_eq!(hub.one::<String>(STORY), "? ? ? ? 192.0.2.8");
}

#[test]
fn a_device_that_asks_by_one_address_and_connects_by_another_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(
        1,
        1,
        &[
            sighting(-90, "192.0.2.9"),
            sighting(-90, "2001:db8::9"),
            dns(-17, "192.0.2.9", "a.example", "2001:db8:f::1"),
            flow(-10, 5, FlowPhase::Update, "2001:db8::9", "[2001:db8:f::1]", 10),
            owned(-10, 5, "2001:db8::9", "2001:db8:f::1"),
            process(-20),
        ],
    );
    let six = "curl 412 claude-code studio studio a.example 2 2001:db8::9";
    assert_eq!(hub.one::<String>(STORY), six);
    // Its address of version 4 changes while the connection lasts, which stays one row.
    hub.send(
        1,
        7,
        &[
            sighting(-5, "192.0.2.10"),
            flow(-4, 5, FlowPhase::End, "2001:db8::9", "[2001:db8:f::1]", 20),
        ],
    );
    assert_eq!(hub.one::<i64>("SELECT count(*) FROM story"), 1);
    // What it does from its new address is its own too.
    hub.send(
        1,
        9,
        &[
            dns(-3, "192.0.2.10", "b.example", "203.0.113.2"),
            flow(3, 6, FlowPhase::End, "192.0.2.10", "203.0.113.2", 20),
        ],
    );
    let new = "SELECT concat_ws(' ', device, name, src) FROM story WHERE name = 'b.example'";
    assert_eq!(hub.one::<String>(new), "studio b.example 192.0.2.10");
}
