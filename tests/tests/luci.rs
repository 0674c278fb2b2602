//! The router's pages in LuCI, as a user sees them in a browser. See `agentmon_tests::luci`
//! for how it is built; with `AGENTMON_LUCI=/path/to/luci` the same tests run against a real
//! LuCI client, and with `AGENTMON_SCREENSHOTS=/folder` they leave pictures.

#[path = "luci/mod.rs"]
mod luci;
