//! The hub's side of `agentmon up`: the very hub of `agentmon serve` with embedded
//! defaults, and the wish to stop (Ctrl-C, SIGTERM), which waits for no one's turn.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::time::SystemClock;
use agentmon_router::collect::Stop;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Place};
use crate::control::{Reply, Request};
use crate::serve::Hub;

/// A running hub that ends with this process.
pub(super) struct LocalHub {
    hub: Hub,
    stop: Stop,
}

impl LocalHub {
    /// Starts the hub on that directory.
    pub(super) fn start(data: &Path, listen: SocketAddr) -> anyhow::Result<Self> {
        let mut config = Config::default();
        config.server.listen = listen;
        let place = Place { data_dir: data.to_owned(), config_file: None };
        let stop = Stop::default();
        watch_signals(stop.clone())?;
        let hub = Hub::start(config, place, Arc::new(SystemClock), None)?;
        Ok(Self { hub, stop })
    }

    /// Where sensors reach it.
    pub(super) const fn address(&self) -> SocketAddr {
        self.hub.address()
    }

    /// A fresh join line for this machine's own sensor; an earlier one is void.
    pub(super) fn enroll(&self, sensor: &str) -> anyhow::Result<String> {
        self.hub.enroll_local(sensor)
    }

    /// Asks without a socket.
    pub(super) fn ask(
        &self,
        request: &Request,
        on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.hub.ask(request, on)
    }

    /// Sleeps; true when asked to stop meanwhile.
    pub(super) fn wait_for_stop(&self, duration: Duration) -> bool {
        self.stop.sleep(duration)
    }

    /// The writer has ended by itself.
    pub(super) fn is_broken(&self) -> bool {
        self.hub.is_broken()
    }

    /// Stops in order; everything accepted is in the file.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.hub.stop()
    }
}

/// From now on Ctrl-C, SIGTERM and SIGHUP ask for an orderly end; a second one ends at once.
fn watch_signals(stop: Stop) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the signal watch")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        // A closed terminal is a wish to stop too: there is no configuration to read again.
        let of = |kind| signal(kind);
        (of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?)
    };
    let body = move || {
        runtime.block_on(async {
            for _ in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if stop.is_set() {
                    // Asked twice: what is stored is stored, the rest is in the ring.
                    std::process::exit(2);
                }
                stop.stop();
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(body).context("signal watch")?;
    Ok(())
}
