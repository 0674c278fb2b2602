//! The lab: real programs, real kernel, real resolver on one machine.
//!
//! ```text
//!   lan  192.168.77.2 (.21-.29)  --+
//!   tv   192.168.77.3 (.31-.39)  --+-- br-lan 192.168.77.1  rtr  203.0.113.1 -- wan 203.0.113.2
//!   hub  192.168.77.10, .11      --+                                            198.51.100.0/24
//!   more by World::plug_in       --+   (DHCP hands out .100 to .149)
//! ```
//!
//! One test = one [`world::World`] in mount, network and process namespaces of its own: tests
//! run in parallel, and all processes of a test die with it. Nothing leaves the machine: the
//! namespaces have no way out.
//!
//! Documentation addresses (RFC 5737) play the internet and documentation names (RFC 2606)
//! its services.

pub mod chain;
pub mod conntrack;
pub mod dhcp;
pub mod dns;
pub mod front;
pub mod hub;
pub mod need;
pub mod netns;
pub mod proc;
pub mod proxy;
pub mod sensor;
pub mod six;
pub mod sshd;
pub mod traffic;
pub mod wait;
pub mod workload;
pub mod world;

pub use wait::eventually;
pub use world::{World, in_world};
