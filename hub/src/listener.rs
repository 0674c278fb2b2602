//! TLS connections in, requests out: accepts, bounds and ends connections.
//!
//! Runs on the hub's async threads, one task per connection. Bounds: connections in all
//! and per address (beyond: closed at once, counted), TLS handshake [`HANDSHAKE_TIME`],
//! request head [`HEAD_TIME`] and [`HEAD_BYTES_MAX`]. Ends in order: no new connections,
//! requests in work are finished within the time given.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentmon_router::counters::Counters;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::server::Peer;

/// A handshake takes two round trips.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Also the longest an idle connection is kept: more than a sensor's 30 s between reports.
const HEAD_TIME: Duration = Duration::from_secs(45);
/// A token, a content type and what an HTTP client adds are below 1 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In all.
    pub total: usize,
    /// From one address.
    pub per_address: usize,
}

#[derive(Debug, Default)]
struct Counted {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; free again when dropped.
struct Place {
    counted: Arc<Mutex<Counted>>,
    address: IpAddr,
}

impl Place {
    fn take(counted: &Arc<Mutex<Counted>>, address: IpAddr, bounds: Bounds) -> Option<Self> {
        let mut now = counted.lock().unwrap_or_else(PoisonError::into_inner);
        let here = now.by_address.get(&address).copied().unwrap_or(0);
        if now.total >= bounds.total || here >= bounds.per_address {
            return None;
        }
        now.total += 1;
        now.by_address.insert(address, here + 1);
        Some(Self { counted: Arc::clone(counted), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut now = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        now.total = now.total.saturating_sub(1);
        if let Some(here) = now.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                now.by_address.remove(&self.address);
            }
        }
    }
}

/// Returns when the hub is to stop, or is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Accepts connections until `stop` becomes true, then waits for those in work, at most
/// `patience`.
pub async fn run(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    bounds: Bounds,
    counters: Counters,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
) {
    let counted = Arc::new(Mutex::new(Counted::default()));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
            Some(_) = tasks.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: it passes when connections end.
                counters.counter("refuse.accept_failed").inc();
                tracing::debug!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Place::take(&counted, peer.ip().to_canonical(), bounds) {
            Some(place) => {
                let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
                let failed = counters.counter("refuse.tls_failed");
                tasks.spawn(async move {
                    if !serve(stream, peer, tls, router, stop).await {
                        failed.inc();
                    }
                    drop(place);
                });
            }
            None => counters.counter("refuse.connections_full").inc(),
        }
    }
    drop(listener);
    let all_done = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all_done).await.is_err() {
        tracing::info!("connections still at work are cut off; their senders try again");
    }
}

/// One connection; false when no TLS came about.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> bool {
    // Without it small answers wait for the peer's delayed acknowledgement. A socket that
    // refuses it works all the same.
    drop(stream.set_nodelay(true));
    let stream = match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed (a client with another CA?)");
            return false;
        }
        Err(_) => return false,
    };
    let service = TowerToHyperService::new(router.layer(axum::Extension(Peer(peer))));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
    true
}
