//! The lab and the other tests that need more than one package.
//!
//! - [`lab`]: a small network on one machine (namespaces lan - rtr - wan and hub), the real
//!   programs in it, real dnsmasq and nft, traffic with known byte counts, faults.
//! - [`luci`]: the router's web pages in a real browser, before a stand-in for LuCI's client.
//! - [`scenario`]: timestamped events in, findings out; attacks and their benign twins.
//! - [`ubusd`]: OpenWrt's message bus, small, for the router's object and the LuCI page.
//!
//! Randomised parts take their seed from `AGENTMON_SEED` or make one; it is always printed.

pub mod lab;
pub mod luci;
pub mod scenario;
pub mod ubusd;
