//! The receiver without its sockets: for scenarios, which bring messages and times themselves.
//!
//! In: messages, whole and allowed, and each second that goes by. Out: what the collector would
//! deliver. Pure; the very parts that the collector is made of, in its order.

use std::net::IpAddr;

use agentmon_core::Event;
use agentmon_core::time::{Mono, Timestamp};

use super::config::Config;
use super::counted::Counts;
use super::hosts::Hosts;
use super::sources::{Now, Sources};
use crate::counters::Counters;
use crate::localtime::Zone;

/// See the module's text.
#[derive(Debug)]
pub struct Scene {
    sources: Sources,
    hosts: Hosts,
    counts: Counts,
}

impl Scene {
    /// A receiver that has just started.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let sources = Sources::new(config, Zone::of(&config.timezone));
        Self { sources, hosts: Hosts::default(), counts: Counts::new(&Counters::default()) }
    }

    /// A message of `peer` comes.
    pub fn message(
        &mut self,
        (peer, bytes): (IpAddr, &[u8]),
        (wall, mono): (Timestamp, Mono),
        out: &mut Vec<Event>,
    ) {
        let now = Now { wall, mono };
        if self.sources.take(peer, mono) {
            self.hosts.message((peer, bytes), now, &mut self.sources, &self.counts, out);
        }
    }

    /// A second goes by.
    pub fn second(&mut self, (wall, mono): (Timestamp, Mono), out: &mut Vec<Event>) {
        self.sources.idle(Now { wall, mono }, out);
        self.hosts.idle(mono, &self.counts, out);
    }
}
