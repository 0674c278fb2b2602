//! Months of a busy home, made up: how fast are questions about them?
//!
//! `scale DIR [FLOWS] [DAYS] [DEVICES]` fills an empty data directory day by day, as a hub
//! would have: rows into the database, days that are over into files, and a fifth as many DNS
//! exchanges as flows. The newest day is today's. Skewed like a home: few devices make most
//! connections, few destinations get most of them. The same numbers make the same rows.
//!
//! `scale DIR --ask` then asks, through the way the command line takes, each question three
//! times, and prints its fastest answer in milliseconds. The device timeline's goal is 500 ms,
//! that of group-by over 100 million flows 3 s, on 2 cores.
//!
//! Disk: about 25 bytes for each flow. Addresses are of RFC 1918, RFC 2544 and RFC 5737.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_hub::control::{Reply, Request};
use agentmon_hub::store::days::plan::Retention;
use agentmon_hub::store::writer::Writer;
use agentmon_hub::store::{Limits, StoreError};
use agentmon_hub::{answer, client};
use agentmon_router::counters::Counters;
use anyhow::{Context as _, bail};

/// Destinations.
const PEERS: u32 = 20_000;
/// Days made before those that are over become files.
const DAYS_HOT: i64 = 4;
const DAY_US: i64 = 86_400_000_000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: i64| -> anyhow::Result<i64> {
        args.get(at).map_or(Ok(default), |n| n.parse().with_context(|| format!("`{n}`")))
    };
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [dir, "--ask"] => ask_all(dir.as_ref()),
        [dir, ..] => make(dir.as_ref(), number(1, 1_000_000)?, number(2, 30)?, number(3, 80)?),
        [] => bail!("usage: scale DIR [FLOWS] [DAYS] [DEVICES], then scale DIR --ask"),
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn make(dir: &Path, flows: i64, days: i64, devices: i64) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock);
    let limits = Limits::default();
    let mut writer = Writer::open(dir, &limits, Counters::default(), clock)?;
    let now = writer.now();
    run(
        &mut writer,
        &format!(
            "INSERT INTO devices (mac, hostname, first_seen, last_seen)
             SELECT {mac}, 'device-' || d, now()::TIMESTAMP - INTERVAL {days} DAY, now()::TIMESTAMP
             FROM range({devices}) r(d);
             INSERT INTO device_addresses (mac, ip, first_seen, last_seen, stay)
             SELECT {mac}, '192.168.1.' || 10 + d, now()::TIMESTAMP - INTERVAL {days} DAY,
                 now()::TIMESTAMP, 1 FROM range({devices}) r(d)",
            mac = mac("d"),
        ),
    )?;
    let begun = clock_ms();
    for nth in 0..days {
        let from = now.micros().div_euclid(DAY_US) * DAY_US - (days - 1 - nth) * DAY_US;
        let length = if nth + 1 == days { now.micros() - from } else { DAY_US };
        run(&mut writer, &peers())?;
        run(&mut writer, &day(from, length, flows / days, devices, nth))?;
        if nth % DAYS_HOT == DAYS_HOT - 1 || nth + 1 == days {
            roll(&mut writer, dir)?;
            say(&format!("{} of {days} days, {} s", nth + 1, (clock_ms() - begun) / 1000))?;
        }
    }
    writer.close()?;
    Ok(())
}

fn run(writer: &mut Writer, sql: &str) -> anyhow::Result<()> {
    Ok(writer.change(|c| c.execute_batch(sql).map_err(StoreError::from))?)
}

fn roll(writer: &mut Writer, dir: &Path) -> anyhow::Result<()> {
    let rules = Retention { disk_mib: 0, ..Retention::default() };
    let request = Request::Cleanup { dry_run: false, rules: Some(rules) };
    answer::change(writer, dir, &request).map(drop)
}

fn clock_ms() -> i64 {
    SystemClock.wall().micros() / 1_000
}

fn mac(device: &str) -> String {
    format!("'00:00:5e:00:53:' || lower(printf('%02x', ({device})::INTEGER))")
}

/// Destinations that are not known (any more: those of rolled days are forgotten).
fn peers() -> String {
    format!(
        "INSERT INTO peers SELECT * FROM (
             SELECT (1 + n)::UINTEGER AS id, '198.18.' || n // 250 || '.' || 1 + n % 250 AS dst,
                 CASE WHEN n % 10 < 9 THEN 'h' || n || '.site' || n % 1500 || '.example' END AS name
             FROM range({PEERS}) r(n)) v WHERE v.id NOT IN (SELECT id FROM peers)"
    )
}

/// One day's rows: spread evenly over `length` microseconds from `from`.
fn day(from: i64, length: i64, rows: i64, devices: i64, nth: i64) -> String {
    // A number from 0 to 1 for each row, day and purpose.
    let dice = |purpose: u32| format!("(hash(n, {nth}, {purpose}) / 18446744073709551616.0)");
    let device = format!("floor({devices} * pow({}, 2))::INTEGER", dice(1));
    let peer = format!("floor({PEERS} * pow({}, 4))::UINTEGER", dice(2));
    let size = |purpose: u32, scale: f64| {
        format!("(exp({scale} + 2.5 * ({} + {} - 1)))::UBIGINT", dice(purpose), dice(purpose + 1))
    };
    let time = format!("make_timestamp({from} + (n * {length} // {rows}))");
    let dns = rows / 5;
    let time_of_dns = format!("make_timestamp({from} + (n * {length} // {dns}))");
    format!(
        "INSERT INTO flows_done (time, sensor, proto, src, sport, peer, dport, nat_src, start,
             duration_ms, bytes_out, bytes_in, packets_out, packets_in, tcp_state, replied,
             offloaded, iface, mac, name_age_ms)
         SELECT time, 1, CASE WHEN tcp THEN 6 ELSE 17 END, '192.168.1.' || 10 + device,
             32768 + (hash(n, 9) % 28000), 1 + peer,
             CASE WHEN peer % 20 < 17 THEN 443 WHEN peer % 20 = 17 THEN 80 ELSE 1024 + peer END,
             '198.51.100.1', (time - to_milliseconds(duration))::TIMESTAMP_MS, duration,
             b_out, b_in, 1 + b_out // 600, 1 + b_in // 1100,
             CASE WHEN tcp THEN 'TIME_WAIT' END, b_in > 60, false, 'br-lan', {mac},
             CASE WHEN peer % 10 < 9 THEN (hash(n, 10) % 60000) END
         FROM (SELECT n, {time} AS time, {device} AS device, {peer} AS peer, {} < 0.7 AS tcp,
                   (-ln(1 - {}) * 20000)::BIGINT AS duration, {} AS b_out, {} AS b_in
               FROM range({rows}) r(n));
         INSERT INTO dns_hot (time, sensor, client, mac, name, domain, qtype, status, answers, ttl,
             latency_us, source)
         SELECT {time_of_dns}, 1, '192.168.1.' || 10 + device, {mac},
             'h' || peer || '.site' || peer % 1500 || '.example', 'site' || peer % 1500 || '.example',
             CASE WHEN peer % 3 = 0 THEN 28 ELSE 1 END, 'ok',
             ['198.18.' || peer // 250 || '.' || 1 + peer % 250], 300, hash(n, 11) % 50000, 'dnsmasq'
         FROM (SELECT n, {device} AS device, {peer} AS peer FROM range({dns}) r(n))",
        dice(3),
        dice(4),
        size(5, 7.0),
        size(7, 8.5),
        mac = mac("device"),
    )
}

/// Name, and the question.
const QUESTIONS: &[(&str, &str)] = &[
    ("count", "SELECT count(*) FROM flows"),
    (
        "bytes of each device",
        "SELECT src, count(*), sum(bytes_out), sum(bytes_in) FROM flows GROUP BY src ORDER BY 3 DESC",
    ),
    (
        "flows of each port",
        "SELECT dport, proto, count(*) AS n FROM flows GROUP BY ALL ORDER BY n DESC LIMIT 20",
    ),
    (
        "bytes of each name",
        "SELECT name, sum(bytes_in) AS b FROM flows GROUP BY name ORDER BY b DESC LIMIT 20",
    ),
    (
        "flows of each day and device",
        "SELECT time::DATE AS day, src, count(*) FROM flows GROUP BY ALL ORDER BY ALL LIMIT 100",
    ),
    (
        "top pairs by bytes",
        "SELECT src, name, sum(bytes_out) AS b FROM flows GROUP BY ALL ORDER BY b DESC LIMIT 10",
    ),
    (
        "one hour, ten days ago",
        "SELECT src, count(*) FROM flows WHERE time >= now()::TIMESTAMP - INTERVAL 241 HOUR AND time < now()::TIMESTAMP - INTERVAL 240 HOUR GROUP BY src",
    ),
    (
        "one device's ports",
        "SELECT dport, count(*) FROM flows WHERE src = '192.168.1.40' GROUP BY dport ORDER BY 2 DESC LIMIT 20",
    ),
];

fn ask_all(dir: &Path) -> anyhow::Result<()> {
    for (name, sql) in QUESTIONS {
        let mut best = i64::MAX;
        for _ in 0..3 {
            let begun = clock_ms();
            let sql = (*sql).to_owned();
            let request =
                Request::Query { sql, params: vec![], timeout_ms: 600_000, untrusted: true };
            client::ask(dir, &request, &mut |reply| match reply {
                Reply::Warning { text } => bail!(text),
                _ => Ok(()),
            })?;
            best = best.min(clock_ms() - begun);
        }
        say(&format!("{best:>7} ms  {name}"))?;
    }
    Ok(())
}
