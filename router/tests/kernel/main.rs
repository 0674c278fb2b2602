//! The kernel collectors against a real kernel: network namespaces, nft NAT and log rules,
//! and `conntrack -E` as the oracle. Each conntrack test runs with and without the kernel's
//! own timestamps, because OpenWrt's kernels have none.
//!
//! Needs root. Without it each test says so loudly and is left out; with
//! `AGENTMON_REQUIRE_LAB=1` it fails instead.

mod conntrack;
mod enforce;
mod lab;
mod nflog;
mod setup;
mod traffic;
mod watch;
