//! Months of a busy home, made up: how fast are questions about them?
//!
//! `scale DIR [FLOWS] [DAYS] [DEVICES]` fills an empty data directory day by day, as a hub
//! would have: rows into the database, days that are over into files, and a fifth as many DNS
//! exchanges as flows. The newest day is today's. Skewed like a home: few devices make most
//! connections, few destinations get most of them. The same numbers make the same rows.
//!
//! `scale DIR --ask` then asks, through the way the command line takes, each question three
//! times, and prints its fastest answer in milliseconds; last, once, what beats within a day and
//! within two weeks. Without a running hub the time and memory are all of this process. Goals on
//! 2 cores: group-by over 100 million flows 3 s, beacons of 10 million flows of one day 10 s;
//! the device timeline's, 500 ms, is `time agentmon --data DIR timeline --device 192.168.1.10
//! --since 30d`.
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
/// Devices that call one place once an hour and do nothing else, beside the busy ones; the
/// last of them went away after the first third of the days.
const QUIET: i64 = 5;
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
             FROM range({all}) r(d);
             INSERT INTO device_addresses (mac, ip, first_seen, last_seen, stay)
             SELECT {mac}, '192.168.1.' || 10 + d, now()::TIMESTAMP - INTERVAL {days} DAY,
                 now()::TIMESTAMP, 1 FROM range({all}) r(d)",
            all = devices + QUIET,
            mac = mac("d"),
        ),
    )?;
    let begun = clock_ms();
    for nth in 0..days {
        let from = now.micros().div_euclid(DAY_US) * DAY_US - (days - 1 - nth) * DAY_US;
        let length = if nth + 1 == days { now.micros() - from } else { DAY_US };
        run(&mut writer, &peers())?;
        let rows = flows / days * (length / 1_000_000) / (DAY_US / 1_000_000);
        run(&mut writer, &day(from, length, rows.max(5), devices, nth))?;
        let stayed = QUIET - i64::from(nth > days / 3);
        run(&mut writer, &hours(from, length, devices, stayed))?;
        run(&mut writer, &arrived(from, length))?;
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

/// In another order than the addresses: files are sorted by these.
fn mac(device: &str) -> String {
    format!("'00:00:5e:00:53:' || lower(printf('%02x', (({device})::INTEGER * 89) % 256))")
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
    // A number from 0 to 1 for each row, day and purpose; of one number each, since hashes of
    // several are alike where one of them is.
    let dice = |purpose: u32| {
        format!("(hash((n * 16 + {purpose}) * 4096 + {nth}) / 18446744073709551616.0)")
    };
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
             32768 + ({} * 28000)::INTEGER, 1 + peer,
             CASE WHEN peer % 20 < 17 THEN 443 WHEN peer % 20 = 17 THEN 80 ELSE 1024 + peer END,
             '198.51.100.1', (time - to_milliseconds(duration))::TIMESTAMP_MS, duration,
             b_out, b_in, 1 + b_out // 600, 1 + b_in // 1100,
             CASE WHEN tcp THEN 'TIME_WAIT' END, b_in > 60, false, 'br-lan', {mac},
             CASE WHEN peer % 10 < 9 THEN ({} * 60000)::INTEGER END
         FROM (SELECT n, {time} AS time, {device} AS device, {peer} AS peer, {} < 0.7 AS tcp,
                   (-ln(1 - {}) * 20000)::BIGINT AS duration, {} AS b_out, {} AS b_in
               FROM range({rows}) r(n));
         INSERT INTO dns_hot (time, sensor, client, mac, name, domain, qtype, status, answers, ttl,
             latency_us, source)
         SELECT {time_of_dns}, 1, '192.168.1.' || 10 + device, {mac},
             'h' || peer || '.site' || peer % 1500 || '.example', 'site' || peer % 1500 || '.example',
             CASE WHEN peer % 3 = 0 THEN 28 ELSE 1 END, 'ok',
             ['198.18.' || peer // 250 || '.' || 1 + peer % 250], 300, ({} * 50000)::INTEGER, 'dnsmasq'
         FROM (SELECT n, {device} AS device, {peer} AS peer FROM range({dns}) r(n))",
        dice(9),
        dice(10),
        dice(3),
        dice(4),
        size(5, 7.0),
        size(7, 8.5),
        dice(11),
        mac = mac("device"),
    )
}

/// For the detectors: in which hours there is something.
fn arrived(from: i64, length: i64) -> String {
    format!(
        "INSERT INTO arrivals (hour, round)
         SELECT make_timestamp({from} + h * 3600000000), 0 FROM range(1 + ({length} - 1) // 3600000000) r(h)"
    )
}

/// The quiet devices' day.
fn hours(from: i64, length: i64, devices: i64, quiet: i64) -> String {
    format!(
        "INSERT INTO flows_done BY NAME
         SELECT make_timestamp({from} + h * 3600000000 + 1500000) AS time, 1 AS sensor, 6 AS proto,
             '192.168.1.' || 10 + {devices} + d AS src, 40000 + h AS sport, 1 + 7 * d AS peer,
             443 AS dport, make_timestamp_ms(({from} + h * 3600000000) // 1000) AS start,
             1500 AS duration_ms, 900 + d AS bytes_out, 4000 AS bytes_in, true AS replied,
             false AS offloaded, 'br-lan' AS iface, {mac} AS mac, 20 AS name_age_ms
         FROM range({length} // 3600000000) r(h), range({quiet}) q(d)",
        mac = mac(&format!("{devices} + d")),
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
    let (begun, mut found) = (clock_ms(), 0);
    client::ask(dir, &Request::Beacons { until_us: None, score: 0.9 }, &mut |reply| {
        found += i64::from(matches!(reply, Reply::Row { .. }));
        Ok(())
    })?;
    say(&format!("{:>7} ms  beacons of a day and of two weeks: {found}", clock_ms() - begun))
}
