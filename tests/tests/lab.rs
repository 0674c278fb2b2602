//! The lab: real programs on a real kernel. `ground` tests the lab itself: if it fails, no
//! other failure means anything. See `agentmon_tests::lab` for how it is built.

#[path = "lab/alerts.rs"]
mod alerts;
#[path = "lab/devices.rs"]
mod devices;
#[path = "lab/enforce.rs"]
mod enforce;
#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/flood.rs"]
mod flood;
#[path = "lab/flows.rs"]
mod flows;
#[path = "lab/ground.rs"]
mod ground;
#[path = "lab/http.rs"]
mod http;
#[path = "lab/lists.rs"]
mod lists;
#[path = "lab/names.rs"]
mod names;
#[path = "lab/pihole.rs"]
mod pihole;
#[path = "lab/pihole_ssh.rs"]
mod pihole_ssh;
#[path = "lab/reload.rs"]
mod reload;
#[path = "lab/space.rs"]
mod space;
#[path = "lab/syslog.rs"]
mod syslog;
