//! The tests, by page, and the stage they share.

mod agreement;
mod alerts;
mod catalogue;
mod daemon;
mod devices;
mod looks;
mod overview;
mod settings;
mod source;
mod status;
mod trouble;

use std::sync::Arc;

use agentmon_tests::luci::browser::Browser;
use agentmon_tests::luci::bus::Fixture;
use agentmon_tests::luci::can_run;
use agentmon_tests::luci::host::Host;

/// A browser in front of the app in front of made-up answers.
struct Stage {
    bus: Arc<Fixture>,
    host: Host,
    browser: Browser,
}

impl Stage {
    /// `None` where there is no browser; that has been said loudly then.
    fn set(test: &str, fixture: Fixture) -> Option<Self> {
        if !can_run(test) {
            return None;
        }
        let bus = Arc::new(fixture);
        let host = Host::start(Arc::<Fixture>::clone(&bus));
        Some(Self { bus, host, browser: Browser::start(test) })
    }

    fn open(&self, page: &str) -> &Browser {
        self.browser.open(&self.host.url(page));
        &self.browser
    }
}
