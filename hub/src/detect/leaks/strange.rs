//! `destination`, `lasting-address`, `home-peer`, `rare-port`: connections to places where
//! this device has no business, judged by all that is stored, which the router cannot know.
//!
//! In: what each device had with each address and port in the last day. Out: findings for
//!
//! - Tor or a VPN, where the device never used it before. A VPN that has been there is a habit.
//! - an address that no answer of two weeks held and no connection has a name for, talked with
//!   in [`LASTING_HOURS`] hours; unlike the router's `direct-ip`, which speaks within seconds of
//!   every such connection, this one waits until it lasts. A device with more than
//!   [`PEERS_MAX`] such addresses shares files or plays.
//! - the same at somebody's home, over TCP, with [`HOME_BYTES`] exchanged.
//! - a port that is not well known and that the device never used in its history.
//!
//! NTP, DNS, calls, games, VPN and file sharing are known by their ports. ATT&CK T1090, T1571,
//! T1041, T1021.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use agentmon_core::service::{Service, proto};
use agentmon_core::tier0::ports::{self, Use};
use duckdb::{Connection, params};

use super::past::{self, Past};
use super::place::{self, Ground, Place, TALKS, Who};
use super::weigh::Weighed;
use super::{Config, DAY_S, FINDINGS_MAX, LEARNING, LEARNING_MOST, SCORE_MIN};
use crate::destinations::Class;
use crate::store::StoreError;

/// As in findings.
pub(crate) const RULES: [&str; 4] = ["destination", "lasting-address", "home-peer", "rare-port"];
/// An address is told when it was talked with in so many hours of a day.
const LASTING_HOURS: usize = 3;
/// With more addresses without a name than this a device shares files, plays, or scans.
const PEERS_MAX: usize = 20;
/// Less with a home is a greeting.
const HOME_BYTES: u64 = 100_000;
/// UDP ports from here on are agreed on for each call or game.
const UDP_PORTS_END: u16 = 1_024;
/// More new ports of one device than this are one finding.
const PORTS_MANY: usize = 5;
/// Most rows read.
const ROWS_MAX: usize = 2_000_000;

/// What a device had with an address and port within the day.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contact {
    pub(crate) name: Option<String>,
    pub(crate) dst: IpAddr,
    pub(crate) service: Service,
    pub(crate) connections: u64,
    pub(crate) bytes: u64,
    pub(crate) hours: BTreeSet<i64>,
    pub(crate) client: IpAddr,
}

/// A device's contacts that were answered.
type Contacts = BTreeMap<Who, Vec<Contact>>;

fn read(db: &Connection, ground: &Ground, now: Timestamp) -> Result<Contacts, StoreError> {
    let sql = format!(
        "WITH {TALKS}
         SELECT mac, arg_max(src, time), name, dst, dport, proto, count(*),
             coalesce(sum(bytes_out), 0)::UBIGINT + coalesce(sum(bytes_in), 0)::UBIGINT,
             list(DISTINCT epoch_us(date_trunc('hour', time)) // 3600000000)::VARCHAR
         FROM talks WHERE replied AND proto IN (6, 17)
         GROUP BY mac, CASE WHEN mac IS NULL THEN src END, name, dst, dport, proto
         LIMIT {ROWS_MAX}"
    );
    let mut statement = db.prepare(&sql)?;
    let from = now.minus(Duration::from_secs(DAY_S)).micros();
    let mut rows = statement.query(params![from, now.micros()])?;
    let mut all = Contacts::new();
    while let Some(row) = rows.next()? {
        let (mac, src): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let (name, dst): (Option<String>, String) = (row.get(2)?, row.get(3)?);
        let Some(who) = Who::new(mac.as_deref(), &src) else { continue };
        let Some((_, dst)) = ground.leaves(&src, name.as_deref(), &dst) else { continue };
        let Ok(client) = src.parse() else { continue };
        let hours: String = row.get(8)?;
        let hours = hours.trim_matches(['[', ']']).split(", ").filter_map(|h| h.parse().ok());
        all.entry(who).or_default().push(Contact {
            name,
            dst,
            service: Service { port: row.get(4)?, proto: row.get(5)? },
            connections: row.get(6)?,
            bytes: row.get(7)?,
            hours: hours.collect(),
            client,
        });
    }
    Ok(all)
}

/// How grave it is that a device begins with Tor or a VPN.
fn weigh_hidden(class: Class, vpn_port: bool, past: &Past) -> Option<Weighed> {
    let base = if class == Class::Tor { 0.6 } else { 0.3 };
    let weighed = Weighed::new(base)
        .when(vpn_port, 0.15, "by a port of VPNs")
        .when(past.is_shared(), -0.1, "but other devices do so too")
        .at_most(LEARNING_MOST, past.is_learning(), LEARNING);
    (weighed.score() >= SCORE_MIN).then_some(weighed)
}

/// How grave it is that a device keeps talking with an address nobody resolved.
fn weigh_lasting(hours: usize, class: Class, past: &Past) -> Option<Weighed> {
    let weighed = Weighed::new(0.35)
        .when(hours >= 8, 0.05, "for much of the day")
        .when(class == Class::Hosting, 0.1, "at a hosting provider")
        .when(past.is_new(7), 0.1, "new for this device")
        .when(past.is_old(), -0.2, "but it has done so for weeks")
        .when(past.is_shared(), -0.15, "but other devices do so too")
        .at_most(LEARNING_MOST, past.is_learning(), LEARNING);
    (weighed.score() >= SCORE_MIN).then_some(weighed)
}

fn weigh_home(past: &Past) -> Option<Weighed> {
    let weighed = Weighed::new(0.4)
        .when(past.is_new(7), 0.1, "new for this device")
        .when(past.is_old(), -0.25, "but it has done so for weeks")
        .when(past.is_shared(), -0.15, "but other devices do so too")
        .at_most(LEARNING_MOST, past.is_learning(), LEARNING);
    (weighed.score() >= SCORE_MIN).then_some(weighed)
}

fn weigh_port(named: bool, class: Class, others: bool) -> Weighed {
    Weighed::new(0.3)
        .when(!named, 0.15, "to an address without a name")
        .when(matches!(class, Class::Hosting | Class::Residential), 0.05, class.phrase())
        .when(others, -0.1, "but other devices use it")
}

/// Findings of the four rules up to `now`.
pub(crate) fn run(
    db: &Connection,
    ground: &Ground,
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let contacts = read(db, ground, now)?;
    let learning = Duration::from_secs(u64::from(config.learning_days) * DAY_S);
    let round = Round { db, ground, now, learning };
    let mut findings = Vec::new();
    for (who, mine) in &contacts {
        round.hidden(*who, mine, &mut findings)?;
    }
    let lasting = lasting(&contacts);
    let addresses: Vec<IpAddr> = lasting.iter().map(|(_, dst, _)| *dst).collect();
    let explained = past::resolved(db, &addresses, now, 14)?;
    for (who, dst, of) in lasting.iter().filter(|(_, dst, _)| !explained.contains(dst)) {
        round.address(*who, *dst, of, &mut findings)?;
    }
    round.ports(&contacts, &mut findings)?;
    for rule in RULES {
        let mut count = 0;
        findings.retain(|finding: &Finding| {
            count += usize::from(finding.rule == rule);
            finding.rule != rule || count <= FINDINGS_MAX
        });
    }
    Ok(findings)
}

/// Addresses without a name that were talked with for hours, or at length at a home.
fn lasting(contacts: &Contacts) -> Vec<(Who, IpAddr, Contact)> {
    let mut all = Vec::new();
    for (who, mine) in contacts {
        let named: BTreeSet<IpAddr> =
            mine.iter().filter(|c| c.name.is_some()).map(|c| c.dst).collect();
        let mut unnamed = HashMap::<IpAddr, Contact>::new();
        for contact in mine.iter().filter(|c| c.name.is_none() && !named.contains(&c.dst)) {
            if ports::known(contact.service).is_some_and(|used| used != Use::Common)
                || matches!(contact.service.port, 53 | 123 | 853)
            {
                continue;
            }
            let sum = unnamed.entry(contact.dst).or_insert_with(|| Contact {
                connections: 0,
                bytes: 0,
                hours: BTreeSet::new(),
                ..contact.clone()
            });
            sum.connections += contact.connections;
            sum.bytes = sum.bytes.saturating_add(contact.bytes);
            sum.hours.extend(&contact.hours);
        }
        if unnamed.len() <= PEERS_MAX {
            all.extend(unnamed.into_iter().map(|(dst, contact)| (*who, dst, contact)));
        }
    }
    all.sort_by_key(|(who, dst, _)| (*who, *dst));
    all
}

struct Round<'a> {
    db: &'a Connection,
    ground: &'a Ground,
    now: Timestamp,
    learning: Duration,
}

impl Round<'_> {
    fn past(&self, who: Who, place: &Place) -> Result<Past, StoreError> {
        past::past(self.db, (who, place), self.now, self.learning)
    }

    /// Tor and VPNs.
    fn hidden(
        &self,
        who: Who,
        mine: &[Contact],
        into: &mut Vec<Finding>,
    ) -> Result<(), StoreError> {
        for class in [Class::Tor, Class::Vpn] {
            let of_class = |c: &&Contact| self.ground.of(c.dst).class == class;
            let Some(contact) = mine.iter().filter(of_class).max_by_key(|c| (c.bytes, c.dst))
            else {
                continue;
            };
            let before = past::addresses(self.db, who, self.now)?;
            if before.iter().any(|dst| self.ground.of(*dst).class == class) {
                continue;
            }
            let past = self.past(who, &Place::new(contact.name.as_deref(), contact.dst))?;
            let vpn = ports::known(contact.service) == Some(Use::Vpn);
            let Some(weighed) = weigh_hidden(class, vpn, &past) else { continue };
            let to = contact.name.clone().unwrap_or_else(|| contact.dst.to_string());
            let what = format!("connects to {} for the first time ({to})", class.phrase());
            let finding = place::finding(
                RULES[0],
                who,
                contact.client,
                class.as_str().into(),
                weighed.score(),
            );
            let finding = place::with_network(finding, &self.ground.of(contact.dst))
                .with("address", contact.dst)
                .with("port", contact.service)
                .with("bytes", contact.bytes)
                .with("connections", contact.connections)
                .with("benign_if", "its owner has set up a VPN or Tor on purpose");
            into.push(Finding { why: weighed.why(&what), ..finding });
        }
        Ok(())
    }

    /// An address without a name.
    fn address(
        &self,
        who: Who,
        dst: IpAddr,
        contact: &Contact,
        into: &mut Vec<Finding>,
    ) -> Result<(), StoreError> {
        let of = self.ground.of(dst);
        let home = of.class == Class::Residential
            && contact.service.proto == proto::TCP
            && contact.bytes >= HOME_BYTES;
        let lasts = contact.hours.len() >= LASTING_HOURS;
        // Of these another rule speaks.
        if of.class.hides() || !(home || lasts) {
            return Ok(());
        }
        let past = self.past(who, &Place::Address(dst))?;
        let (rule, weighed, what) = if home {
            let sum = place::bytes(contact.bytes);
            let what = format!("exchanged {sum} with {dst} in {}", of.class.phrase());
            (RULES[2], weigh_home(&past), what)
        } else {
            let hours = contact.hours.len();
            let what = format!(
                "talked with {dst} in {hours} hours of the day, an address that nobody here resolved"
            );
            (RULES[1], weigh_lasting(hours, of.class, &past), what)
        };
        let Some(weighed) = weighed else { return Ok(()) };
        let finding = place::finding(rule, who, contact.client, dst.to_string(), weighed.score());
        let finding = place::with_network(finding, &of)
            .with("port", contact.service)
            .with("hours", contact.hours.len())
            .with("connections", contact.connections)
            .with("bytes", contact.bytes)
            .with("devices_there", past.devices)
            .with(
                "benign_if",
                "a program that has addresses built in: a game, a call, file sharing",
            );
        into.push(Finding { why: weighed.why(&what), ..finding });
        Ok(())
    }

    /// Ports never used before.
    fn ports(&self, contacts: &Contacts, into: &mut Vec<Finding>) -> Result<(), StoreError> {
        for (who, mine) in contacts {
            let concerns = |c: &&Contact| {
                let low = c.service.proto == proto::TCP || c.service.port < UDP_PORTS_END;
                low && ports::known(c.service).is_none() && !self.ground.of(c.dst).class.hides()
            };
            let mut by_port = BTreeMap::<(u16, u8), &Contact>::new();
            for contact in mine.iter().filter(concerns) {
                by_port.entry((contact.service.port, contact.service.proto)).or_insert(contact);
            }
            let mut fresh = Vec::new();
            for contact in by_port.values().take(64) {
                let port = past::port(self.db, *who, contact.service, self.now)?;
                if !port.used_before && !port.is_learning(self.now, self.learning) {
                    fresh.push((*contact, port.others));
                }
            }
            if fresh.len() > PORTS_MANY {
                into.push(many_ports(*who, &fresh));
                continue;
            }
            for (contact, others) in fresh {
                into.push(self.port(*who, contact, others));
            }
        }
        Ok(())
    }

    fn port(&self, who: Who, contact: &Contact, others: u64) -> Finding {
        let of = self.ground.of(contact.dst);
        let weighed = weigh_port(contact.name.is_some(), of.class, others > 0);
        let to = contact.name.clone().unwrap_or_else(|| contact.dst.to_string());
        let what = format!(
            "connected to {to} port {}, which it never used in all its history",
            contact.service
        );
        let subject = contact.service.to_string();
        let finding = place::finding(RULES[3], who, contact.client, subject, weighed.score());
        let finding = place::with_network(finding, &of)
            .with("to", to)
            .with("connections", contact.connections)
            .with("bytes", contact.bytes)
            .with("devices_using_it", others)
            .with("benign_if", "a program its owner has installed");
        Finding { why: weighed.why(&what), ..finding }
    }
}

/// One finding in place of many.
fn many_ports(who: Who, fresh: &[(&Contact, u64)]) -> Finding {
    let ports: Vec<String> =
        fresh.iter().take(8).map(|(contact, _)| contact.service.to_string()).collect();
    let client = fresh.first().map_or(IpAddr::from([0, 0, 0, 0]), |(contact, _)| contact.client);
    let count = fresh.len();
    let finding = place::finding(RULES[3], who, client, "many ports".into(), 0.35)
        .with("ports", ports.join(" "))
        .with("count", count)
        .with("benign_if", "a game, file sharing, or a program its owner has installed");
    let why = format!("used {count} ports within a day that it never used before");
    Finding { why, ..finding }
}
