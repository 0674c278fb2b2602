//! The LuCI app in a real browser (headless Chromium), against a page host of our own.
//!
//! ```text
//! Chromium <- chromedriver <- browser.rs      host.rs -> rpc.rs (rights of acl.d) -> a Bus
//!     |                                          ^                                 -> uci.rs
//!     +---- pages, scripts, POST /ubus ----------+
//! ```
//!
//! - [`browser`]: one Chromium; what a user sees, and what the page asked for and complained of.
//! - [`host`]: serves the app's own files and the client around them: by default the stand-in
//!   in `tests/luci`, with `AGENTMON_LUCI=/path/to/luci` the real client of a LuCI source
//!   tree. Both must show the same, which is how the stand-in is kept honest.
//! - [`rpc`]: JSON-RPC as uhttpd speaks it, with the rights that the app's own ACL file gives.
//! - [`bus`]: what answers calls to the object `agentmon`: a fixture, or the real daemon.
//! - [`po`]: translatable strings of the app and its catalogues.

pub mod browser;
pub mod bus;
pub mod host;
pub mod po;
pub mod rpc;
pub mod uci;

use std::path::PathBuf;

use crate::lab::need::find;

/// Programs and their Debian packages.
const PROGRAMS: [(&str, &str); 2] = [("chromium", "chromium"), ("chromedriver", "chromium-driver")];

/// The app's folder in the source tree.
#[must_use]
pub fn app() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the root").join("openwrt-feed/luci-app-agentmon")
}

/// Whether a browser test can go on. Says loudly what is missing if not.
///
/// # Panics
/// When something is missing and `AGENTMON_REQUIRE_LAB=1` forbids leaving tests out.
#[must_use]
pub fn can_run(test: &str) -> bool {
    let lacks = |(program, package): &(&str, &str)| {
        find(program).is_none().then(|| format!("{program} (apt-get install {package})"))
    };
    let missing: Vec<_> = PROGRAMS.iter().filter_map(lacks).collect();
    if missing.is_empty() {
        return true;
    }
    crate::lab::need::leave_out("BROWSER", test, &missing);
    false
}
