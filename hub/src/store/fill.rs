//! One event, one row: which field goes to which column.
//!
//! In: an event on the hub's clock. Out: one more row in the columns of its table. Pure.

use agentmon_core::Timestamp;
use agentmon_core::event::{
    Answer, Connection, Direction, Dns, Endpoint, Firewall, Flow, FlowPhase, Gap, Mac, Process,
    TcpState,
};

use super::rows::{
    ConnectionRows, DnsRows, DoneRows, FirewallRows, GapRows, OpenRows, ProcessRows,
};
use super::staging::Open;

pub(super) fn push_dns(
    rows: &mut DnsRows,
    time: Timestamp,
    sensor: i32,
    mac: Option<Mac>,
    dns: &Dns,
    sensor_time: Option<Timestamp>,
) {
    rows.time.push(time);
    rows.sensor.append_value(sensor);
    rows.client.show(dns.client);
    rows.mac.show_option(mac);
    rows.name.push(dns.name.as_str());
    rows.domain.push(dns.name.domain());
    rows.qtype.append_value(dns.qtype);
    rows.status.push(dns.status.as_str());
    rows.rcode.append_option(dns.rcode);
    rows.answers.push(dns.answers.iter().map(Shown));
    rows.ttl.append_option(dns.ttl);
    rows.upstream.option(dns.upstream.as_deref());
    rows.latency_us.append_option(dns.latency_us);
    rows.blocked_by.option(dns.blocked_by.as_deref());
    rows.source.push(&dns.source);
    rows.sensor_time.option(sensor_time);
    rows.rows += 1;
}

/// An answer as stored: an address, the next name, or the record's text.
struct Shown<'a>(&'a Answer);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Answer::Address(ip) => ip.fmt(f),
            Answer::Cname(name) => f.write_str(name.as_str()),
            Answer::Other(text) => f.write_str(text),
        }
    }
}

/// Fills the columns open and finished flows share.
macro_rules! push_flow {
    ($rows:expr, $sensor:expr, $open:expr) => {{
        let (rows, open) = ($rows, $open);
        let flow = &open.flow;
        rows.time.push(open.time);
        rows.sensor.append_value($sensor);
        rows.proto.append_value(flow.proto);
        rows.src.show(flow.src.ip);
        rows.sport.append_value(flow.src.port);
        rows.dport.append_value(flow.dst.port);
        rows.nat_src.show_option(flow.nat_src.map(|e| e.ip));
        rows.nat_sport.append_option(changed_port(flow.nat_src, flow.src));
        rows.nat_dst.show_option(flow.nat_dst.map(|e| e.ip));
        rows.nat_dport.append_option(changed_port(flow.nat_dst, flow.dst));
        rows.start.option(flow.start);
        rows.duration_ms.append_option(flow.duration_ms);
        rows.bytes_out.append_option(flow.volume.map(|v| v.bytes_out));
        rows.bytes_in.append_option(flow.volume.map(|v| v.bytes_in));
        rows.packets_out.append_option(flow.volume.map(|v| v.packets_out));
        rows.packets_in.append_option(flow.volume.map(|v| v.packets_in));
        rows.tcp_state.option(flow.tcp_state.map(TcpState::as_str));
        rows.replied.append_value(flow.replied);
        rows.offloaded.append_value(flow.offloaded);
        rows.iface.option(flow.iface.as_deref());
        rows.mac.show_option(flow.mac);
        rows.name_age_ms.append_option(flow.resolved.as_ref().map(|r| r.age_ms));
        rows.sensor_time.option(open.sensor_time);
        rows.rows += 1;
    }};
}

/// The name by which the client had resolved the destination.
pub(super) fn name_of(flow: &Flow) -> Option<&str> {
    flow.resolved.as_ref().map(|r| r.name.as_str())
}

/// Source NAT keeps the port where it can; then nothing is stored (see the schema).
fn changed_port(nat: Option<Endpoint>, original: Endpoint) -> Option<u16> {
    nat.map(|e| e.port).filter(|port| *port != original.port)
}

/// `peer`: the number of where it went, see [`super::peers`].
pub(super) fn push_done(rows: &mut DoneRows, sensor: i32, open: &Open, peer: u32) {
    rows.peer.append_value(peer);
    push_flow!(rows, sensor, open);
}

pub(super) fn push_open(rows: &mut OpenRows, sensor: i32, open: &Open) {
    rows.id.append_value(open.flow.id);
    rows.epoch.append_value(open.epoch);
    rows.received.push(open.received);
    rows.dst.show(open.flow.dst.ip);
    rows.name.option(name_of(&open.flow));
    push_flow!(rows, sensor, open);
}

pub(super) fn push_firewall(
    rows: &mut FirewallRows,
    time: Timestamp,
    sensor: i32,
    mac: Option<Mac>,
    packet: &Firewall,
    sensor_time: Option<Timestamp>,
) {
    rows.time.push(time);
    rows.sensor.append_value(sensor);
    rows.verdict.push(packet.verdict.as_str());
    rows.prefix.push(packet.prefix.trim_end());
    rows.proto.append_value(packet.proto);
    rows.src.show(packet.src.ip);
    rows.sport.append_value(packet.src.port);
    rows.dst.show(packet.dst.ip);
    rows.dport.append_value(packet.dst.port);
    rows.in_iface.option(packet.in_iface.as_deref());
    rows.out_iface.option(packet.out_iface.as_deref());
    rows.mac.show_option(mac);
    rows.bytes.append_value(packet.bytes);
    rows.sensor_time.option(sensor_time);
    rows.rows += 1;
}

pub(super) fn push_gap(rows: &mut GapRows, time: Timestamp, sensor: i32, gap: &Gap) {
    rows.time.push(time);
    rows.sensor.append_value(sensor);
    rows.collector.push(&gap.collector);
    rows.since.push(gap.from);
    rows.reason.push(&gap.reason);
    rows.lost.append_option(gap.lost);
    rows.rows += 1;
}

pub(super) fn push_process(
    rows: &mut ProcessRows,
    time: Timestamp,
    sensor: i32,
    process: &Process,
    sensor_time: Option<Timestamp>,
) {
    let program = &process.program;
    rows.time.push(time);
    rows.sensor.append_value(sensor);
    rows.phase.push(process.phase.as_str());
    rows.process.append_value(program.id);
    rows.parent.append_option(process.ancestors.first().map(|p| p.id));
    rows.host.push(&process.host);
    rows.os.push(&process.os);
    rows.pid.append_value(program.pid);
    rows.name.push(&program.name);
    rows.exe.option(program.exe.as_deref());
    rows.deleted.append_value(program.deleted);
    rows.sha256.option(program.sha256.as_deref());
    rows.argv.push(program.argv.iter());
    rows.user_name.option(program.user.as_deref());
    rows.signer.option(program.signer.as_deref());
    rows.package.option(program.package.as_deref());
    rows.start.option(process.start);
    rows.container.option(process.container.as_deref());
    // Texts and numbers: nothing in it can fail to be JSON.
    rows.ancestors.push(&serde_json::to_string(&process.ancestors).unwrap_or_default());
    rows.sensor_time.option(sensor_time);
    rows.rows += 1;
}

pub(super) fn push_connection(
    rows: &mut ConnectionRows,
    time: Timestamp,
    sensor: i32,
    connection: &Connection,
    sensor_time: Option<Timestamp>,
) {
    let c = connection;
    let inward = c.direction == Direction::In;
    let (src, dst) = if inward { (c.remote, c.local) } else { (c.local, c.remote) };
    let sent = c.volume.map(|v| if inward { v.bytes_in } else { v.bytes_out });
    let received = c.volume.map(|v| if inward { v.bytes_out } else { v.bytes_in });
    rows.time.push(time);
    rows.sensor.append_value(sensor);
    rows.id.append_value(c.id);
    rows.open.append_value(c.phase != FlowPhase::End);
    rows.process.append_option(c.process);
    rows.pid.append_option((c.pid != 0).then_some(c.pid));
    rows.name.option(c.name.as_deref());
    rows.direction.push(c.direction.as_str());
    rows.proto.append_value(c.proto);
    rows.src.show(src.ip);
    rows.sport.append_value(src.port);
    rows.dst.show(dst.ip);
    rows.dport.append_value(dst.port);
    rows.start.option(c.start);
    rows.duration_ms.append_option(c.duration_ms);
    rows.bytes_out.append_option(sent);
    rows.bytes_in.append_option(received);
    rows.user_name.option(c.user.as_deref());
    rows.container.option(c.container.as_deref());
    rows.how.push(&c.how);
    rows.domain.option(c.resolved.as_ref().map(|r| r.name.as_str()));
    rows.sensor_time.option(sensor_time);
    rows.rows += 1;
}
