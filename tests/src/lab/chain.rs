//! The whole chain: resolver, router, a line that can be broken, hub.

use std::path::Path;

use super::front::Front;
use super::hub::{Hub, PORT};
use super::proc::Proc;
use super::proxy::TcpProxy;
use super::sensor::Sensor;
use super::wait::{eventually, want};
use super::world::{HUB, HUB_LINE, LAN, World};
use super::{dns, traffic};

/// Domains of the lab's internet; each with everything below it.
pub const ZONES: [(&str, &str); 6] = [
    ("example.com", "198.51.100.10"),
    ("example.net", "198.51.100.20"),
    ("example.org", "198.51.100.30"),
    ("fresh.example", "198.51.100.40"),
    ("listed.example", "198.51.100.66"),
    ("cdn.example", "198.51.100.70"),
];

/// Port of the reverse proxy before the hub.
const FRONT_PORT: u16 = 8788;

/// Everything running.
#[derive(Debug)]
pub struct Chain {
    /// The hub.
    pub hub: Hub,
    /// The router's agentmon.
    pub sensor: Sensor,
    /// The line between them.
    pub line: TcpProxy,
    /// What stands before the hub, if the test wants it.
    pub front: Option<Front>,
    /// dnsmasq on the router.
    pub resolver: Proc,
    _internet: Proc,
}

impl Chain {
    /// Default settings.
    #[must_use]
    pub fn start(world: &World) -> Self {
        Self::start_with(world, "", "")
    }

    /// More settings (TOML) for router and hub.
    #[must_use]
    pub fn start_with(world: &World, router: &str, hub: &str) -> Self {
        Self::start_all(world, router, &world.file("hub"), hub, false)
    }

    /// With a reverse proxy before the hub.
    #[must_use]
    pub fn start_behind_front(world: &World, router: &str) -> Self {
        Self::start_all(world, router, &world.file("hub"), "", true)
    }

    /// With the hub's data in a folder of the caller's.
    #[must_use]
    pub fn start_on(world: &World, data: &Path) -> Self {
        Self::start_all(world, "", data, "", false)
    }

    fn start_all(world: &World, router: &str, data: &Path, hub: &str, front: bool) -> Self {
        let internet = dns::internet(world, &ZONES);
        let resolver = dns::resolver(world);
        traffic::serve_tcp("wan", 443);
        let hub = Hub::start_with(world, data, hub);
        // Where the router believes the hub to be: a proxy that passes on to the real one.
        let (at, real) = (format!("{HUB_LINE}:{PORT}"), format!("{HUB}:{PORT}"));
        let before = format!("{HUB}:{FRONT_PORT}");
        let front = front.then(|| Front::start("hub", &before, HUB_LINE, &real, data));
        let line = TcpProxy::start("hub", &at, if front.is_some() { &before } else { &real });
        let sensor = Sensor::start_with(world, &hub, HUB_LINE, router);
        let chain = Self { hub, sensor, line, front, resolver, _internet: internet };
        chain.is_alive("first", 20.0);
        chain
    }

    /// C7: a query made now shows up at the hub within `seconds` (stretched).
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn is_alive(&self, label: &str, seconds: f64) {
        // Asked until it shows: the sensor may just be starting and begin after it.
        let mut n = 0;
        eventually(seconds, &format!("C7: {label} shows at the hub"), || {
            n += 1;
            dns::ask("lan", LAN, &format!("{label}-{n}.fresh.example"), dns::A);
            let like =
                format!("SELECT count(*) FROM dns WHERE name LIKE '{label}-%.fresh.example'");
            want(self.hub.number(&like) > 0, || "nothing yet".to_owned())
        });
    }

    /// C3: every name that begins with `prefix` stands at the hub once, for `count`
    /// different names: although the resolver logged it, and its packets passed by.
    ///
    /// # Panics
    /// When one is missing or doubled.
    #[track_caller]
    pub fn has_exactly_once(&self, prefix: &str, count: u64, seconds: f64) {
        let rows = format!("FROM dns WHERE name LIKE '{prefix}%'");
        self.hub.reaches(seconds, &format!("SELECT count(DISTINCT name) {rows}"), count);
        let doubled = format!("SELECT name, count(*) AS n {rows} GROUP BY name HAVING n <> 1");
        let doubled = self.hub.sql(&doubled);
        assert!(doubled.is_empty(), "C3: stored more than once: {doubled:?}");
    }

    /// C1: what the router accepted was acknowledged, waits, or is counted as dropped; and
    /// what was acknowledged the hub has stored. Returns how many were dropped.
    ///
    /// # Panics
    /// When it does not hold within 20 s (stretched): the two are not asked at one instant.
    #[track_caller]
    #[must_use]
    pub fn conserved(&self) -> u64 {
        eventually(20.0, "C1: conservation", || {
            let status = self.sensor.status()?;
            let ring = &status["ring"];
            let number = |key: &str| ring[key].as_u64().ok_or_else(|| format!("{key} in {ring}"));
            let reasons = ring["dropped"].as_object().ok_or_else(|| ring.to_string())?;
            let dropped: u64 = reasons.values().filter_map(serde_json::Value::as_u64).sum();
            let acked = number("acked")?;
            let kept = acked + number("pending")? + number("in_doubt")?;
            let accepted = number("accepted")?;
            want(accepted == kept + dropped, || format!("accepted, but not kept: {ring}"))?;
            let stored = "SELECT coalesce(sum(events + bad), 0)::UBIGINT FROM ingest_cursor";
            let stored = self.hub.number(stored);
            want(stored == acked, || format!("the hub has {stored}; {ring}"))?;
            Ok(dropped)
        })
    }
}
