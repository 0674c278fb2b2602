//! The HTTPS side: sensors send batches, and ask whether they are known.
//!
//! `POST /v1/ingest` (a batch), `GET /v1/hello` (is my token good?), `GET /v1/lists` (what
//! nobody should talk to, compiled; by entity tag), `GET /healthz` (is
//! the process alive? no token). Answers are JSON; a refusal is `{"error": ...}` with a
//! reason the operator of the sensor can act on.
//! Runs on the hub's async threads; decoding on blocking ones, storing on the writer.
//!
//! Invariants: nothing of a request is read before its token is known; connections, header
//! and body bytes, request time, batches in work, and batches per sensor are bounded;
//! every refusal is counted as `refuse.<reason>`; 200 means committed.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::time::Clock;
use agentmon_core::wire::{self, WireError};
use agentmon_router::counters::Counters;
use agentmon_router::forward::client::{LISTS_TYPE, etag};
use agentmon_router::ratelimit::LogLimit;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::enroll::{Denied, Registry, Sensor};
use crate::feeds::Service;
use crate::ingest::Incoming;
use crate::store::StoreError;
use crate::store::handle::{Handle, Refused};

/// What the handlers share.
pub struct Shared {
    /// The store.
    pub store: Handle,
    /// Who may send.
    pub registry: Arc<Registry>,
    /// The hub's counters.
    pub counters: Counters,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// A request's body must be there after this.
    pub request_time: Duration,
    /// Batches in memory.
    ingests: Semaphore,
    /// Sensors with a batch in work.
    busy: Mutex<HashSet<i32>>,
    /// One line per reason and minute.
    lines: LogLimit,
    /// What routers fetch of lists.
    lists: Arc<Service>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// `ingests_max` batches are worked on at a time.
    #[must_use]
    pub fn new(
        store: Handle,
        registry: Arc<Registry>,
        counters: Counters,
        clock: Arc<dyn Clock>,
        request_time: Duration,
        ingests_max: usize,
        lists: Arc<Service>,
    ) -> Self {
        Self {
            store,
            registry,
            counters,
            clock,
            request_time,
            ingests: Semaphore::new(ingests_max),
            busy: Mutex::default(),
            lines: LogLimit::default(),
            lists,
        }
    }

    /// The sensor is done with its batch when this is dropped.
    fn occupy(self: &Arc<Self>, sensor: i32) -> Option<Occupied> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(sensor).then(|| Occupied { shared: Arc::clone(self), sensor })
    }
}

struct Occupied {
    shared: Arc<Shared>,
    sensor: i32,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.shared.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.sensor);
    }
}

/// The client's address, put on each request by the listener.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The routes.
pub fn router(shared: Arc<Shared>) -> Router {
    let missing = || async { refuse(StatusCode::NOT_FOUND, "there is nothing at this path") };
    let method = || async { refuse(StatusCode::METHOD_NOT_ALLOWED, "not with this method") };
    Router::new()
        .route("/v1/ingest", post(ingest))
        .route("/v1/hello", get(hello))
        .route("/v1/lists", get(lists))
        .route("/healthz", get(|| async { axum::Json(json!({ "alive": true })) }))
        .fallback(missing)
        .method_not_allowed_fallback(method)
        .with_state(shared)
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, axum::Json(json!({ "error": why }))).into_response()
}

/// A request that is not served: what the client is told, and what is counted.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    /// Ends the counter's name.
    reason: &'static str,
    text: String,
    retry_after: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self { status, reason, text: text.into(), retry_after: None }
    }
    /// Come again after so many seconds.
    fn later(
        status: StatusCode,
        reason: &'static str,
        text: impl Into<String>,
        after: u32,
    ) -> Self {
        Self { retry_after: Some(after), ..Self::new(status, reason, text) }
    }

    fn answer(self, shared: &Shared, peer: Option<IpAddr>) -> Response {
        shared.counters.counter(&format!("refuse.{}", self.reason)).inc();
        let peer = peer.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        if let Some(more) = shared.lines.allow(self.reason, shared.clock.mono()) {
            let status = self.status.as_u16();
            tracing::warn!(peer, status, reason = self.reason, "refused: {}{more}", self.text);
        }
        let mut response = refuse(self.status, &self.text);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_canonical())
}

async fn hello(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match authenticate(&shared, request.headers()) {
        Ok(sensor) => axum::Json(json!({
            "sensor": sensor.name, "version": env!("CARGO_PKG_VERSION"), "wire": wire::VERSION,
        }))
        .into_response(),
        Err(refusal) => refusal.answer(&shared, peer(&request)),
    }
}

/// The compiled lists, unless the router has them (RFC 9110 section 13.1.2).
async fn lists(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if let Err(refusal) = authenticate(&shared, request.headers()) {
        return refusal.answer(&shared, peer(&request));
    }
    let Some(served) = shared.lists.served() else {
        return refuse(StatusCode::NOT_FOUND, "this hub has no lists (see `lists` in hub.toml)");
    };
    let tag = etag(served.checksum);
    let known = request.headers().get_all(IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if known.map(str::trim).any(|known| known == tag) {
        shared.counters.counter("lists.unchanged").inc();
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    shared.counters.counter("lists.sent").inc();
    let headers = [(ETAG, tag), (CONTENT_TYPE, LISTS_TYPE.to_owned())];
    (headers, Body::from(served.bytes)).into_response()
}

async fn ingest(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let peer = peer(&request);
    match take(&shared, request, peer).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(&shared, peer),
    }
}

async fn take(
    shared: &Arc<Shared>,
    request: Request,
    peer: Option<IpAddr>,
) -> Result<Response, Refusal> {
    let sensor = authenticate(shared, request.headers())?;
    check_head(request.headers())?;
    let occupied = shared.occupy(sensor.id).ok_or_else(|| {
        let text = "another batch of this sensor is being stored; is its token used twice?";
        Refusal::later(StatusCode::TOO_MANY_REQUESTS, "sensor_busy", text, 1)
    })?;
    let permit = shared.ingests.try_acquire().map_err(|_| {
        let text = "the hub is reading as many batches as it can; try again";
        Refusal::later(StatusCode::SERVICE_UNAVAILABLE, "hub_busy", text, 1)
    })?;
    let body = read(request.into_body(), shared.request_time).await?;
    let received = shared.clock.wall();
    let address = peer.map(|ip| ip.to_string());
    let decoded =
        tokio::task::spawn_blocking(move || Incoming::decode(&body, sensor.id, received, address));
    let incoming = decoded
        .await
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error"))?
        .map_err(undecodable)?;
    let (epoch, first_seq) = (incoming.epoch, incoming.first_seq);
    let outcome = shared.store.store(incoming).await.map_err(unstored)?;
    drop((permit, occupied));
    Ok(axum::Json(json!({
        "epoch": epoch,
        "acked": outcome.acked.unwrap_or(first_seq.saturating_sub(1)),
        "cursor": outcome.cursor,
        "stored": outcome.stored,
        "repeated": outcome.repeated,
        "bad": outcome.bad,
    }))
    .into_response())
}

fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<Sensor, Refusal> {
    let deny = |reason, text: &str| Refusal::new(StatusCode::UNAUTHORIZED, reason, text);
    let header = headers.get(AUTHORIZATION).and_then(|h| h.to_str().ok());
    let header = header.ok_or_else(|| {
        deny("no_token", "no token: enrol this sensor at the hub (agentmon enroll NAME)")
    })?;
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim()).unwrap_or_default();
    match shared.registry.find(token) {
        Ok(sensor) => Ok(sensor),
        Err(Denied::Unknown) => Err(deny(
            "unknown_token",
            "unknown token: it was renewed or belongs to another hub; enrol and join again",
        )),
        Err(Denied::Revoked) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "revoked",
            "this sensor was revoked at the hub; agentmon enroll NAME lets it in again",
        )),
    }
}

/// What can be refused before the body comes.
fn check_head(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if kind != wire::CONTENT_TYPE {
        let text = format!("want Content-Type: {}", wire::CONTENT_TYPE);
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_type", text));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|h| h.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|n| n > wire::BODY_BYTES_MAX) {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> Refusal {
    let text =
        format!("a batch has at most {} bytes; send fewer events at once", wire::BODY_BYTES_MAX);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
}

async fn read(body: Body, patience: Duration) -> Result<Vec<u8>, Refusal> {
    let limited = Limited::new(body, wire::BODY_BYTES_MAX).collect();
    match tokio::time::timeout(patience, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            let text = format!("the body ended early: {error}");
            Err(Refusal::new(StatusCode::BAD_REQUEST, "broken_body", text))
        }
        Err(_) => {
            let text = format!("the body took longer than {} s", patience.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "slow_body", text))
        }
    }
}

fn undecodable(error: WireError) -> Refusal {
    let (status, reason) = match &error {
        WireError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        WireError::NewerVersion(_) => (StatusCode::UPGRADE_REQUIRED, "newer_version"),
        WireError::Protobuf(_)
        | WireError::Zstd(_)
        | WireError::UnknownKind
        | WireError::Field(_) => (StatusCode::BAD_REQUEST, "malformed"),
    };
    Refusal::new(status, reason, error.to_string())
}

fn unstored(refused: Refused) -> Refusal {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match refused {
        Refused::Full => Refusal::later(unavailable, "queue_full", refused.to_string(), 1),
        Refused::Stopping => Refusal::later(unavailable, "stopping", refused.to_string(), 5),
        Refused::Store(error) => match error.as_ref() {
            StoreError::DiskFull(_) => {
                let text = "the hub's disk is full; keep the events, its operator must make room";
                Refusal::later(unavailable, "disk_full", text, 30)
            }
            // The details are in the hub's log; they are nothing for the network.
            _ => {
                let text = "the hub could not store the batch; see its log";
                Refusal::later(unavailable, "store_failed", text, 5)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(refusal: &Refusal, status: u16, reason: &str, after: Option<u32>) {
        let got = (refusal.status.as_u16(), refusal.reason, refusal.retry_after);
        assert_eq!(got, (status, reason, after), "{}", refusal.text);
    }

    #[test]
    fn what_cannot_be_stored_now_may_come_again() {
        let store = |error| Refused::Store(Arc::new(error));
        check(&unstored(Refused::Full), 503, "queue_full", Some(1));
        check(&unstored(Refused::Stopping), 503, "stopping", Some(5));
        check(&unstored(store(StoreError::DiskFull("x".into()))), 503, "disk_full", Some(30));
        let other = unstored(store(StoreError::Db("secret path".into())));
        check(&other, 503, "store_failed", Some(5));
        assert!(!other.text.contains("secret"));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let large = WireError::TooLarge { what: "batch bytes", max: 1 };
        check(&undecodable(large), 413, "too_large", None);
        check(&undecodable(WireError::NewerVersion(9)), 426, "newer_version", None);
        check(&undecodable(WireError::Field("x")), 400, "malformed", None);
    }
}
