//! The hub's end of the control socket: `control.sock` in the data directory, mode 0600.
//!
//! In: one [`Request`] line per connection. Out: [`Reply`] lines. Each connection has a
//! blocking thread of the runtime's pool; at most [`CONNECTIONS_MAX`], each bounded by
//! [`READ_TIME`] for the request and [`WRITE_TIME`] for each write, so that a reader that
//! stands still holds nothing for long.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};

use crate::control::{REQUEST_BYTES_MAX, Reply, Request, SOCKET_NAME};

/// Most conversations at a time.
pub const CONNECTIONS_MAX: usize = 16;
const READ_TIME: Duration = Duration::from_secs(10);
const WRITE_TIME: Duration = Duration::from_secs(30);

/// Carries out a request.
pub trait Answers: Send + Sync + 'static {
    /// Every reply but [`Reply::Failed`] goes to `on`.
    ///
    /// # Errors
    /// What becomes [`Reply::Failed`].
    fn answer(
        &self,
        request: &Request,
        on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
    ) -> anyhow::Result<()>;
}

/// Makes the socket. The caller holds the store's lock, so one that is there is a
/// leftover of a killed hub.
///
/// # Errors
/// When the path cannot be bound.
pub fn bind(data_dir: &Path) -> anyhow::Result<(UnixListener, PathBuf)> {
    let path = data_dir.join(SOCKET_NAME);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("removing the old {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| {
        format!("binding {} (a socket's path has at most 107 bytes)", path.display())
    })?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| path.display().to_string())?;
    Ok((listener, path))
}

/// Serves until `stop` becomes true.
pub async fn run(listener: UnixListener, hub: Arc<dyn Answers>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = crate::listener::stopped(&mut stop) => return,
        };
        let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting on the control socket failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Waits for a place: the client's own patience decides how long.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let hub = Arc::clone(&hub);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = converse(&stream, hub.as_ref()) {
                tracing::debug!(%error, "a control conversation ended early");
            }
            drop(place);
        });
    }
}

fn converse(stream: &UnixStream, hub: &dyn Answers) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(READ_TIME))?;
    stream.set_write_timeout(Some(WRITE_TIME))?;
    let mut line = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
    BufReader::new(stream).take(limit).read_until(b'\n', &mut line)?;
    let mut out = BufWriter::with_capacity(64 * 1024, stream);
    let outcome = if line.last() == Some(&b'\n') {
        serde_json::from_slice::<Request>(&line)
            .context("a request of another version; use the agentmon of this hub")
            .and_then(|request| hub.answer(&request, &mut |reply| write(&mut out, &reply)))
    } else {
        Err(anyhow::anyhow!("the request is cut short or longer than {REQUEST_BYTES_MAX} bytes"))
    };
    if let Err(error) = outcome {
        write(&mut out, &Reply::Failed { error: format!("{error:#}") })?;
    }
    Ok(out.flush()?)
}

fn write(out: &mut impl Write, reply: &Reply) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, reply)?;
    Ok(out.write_all(b"\n")?)
}
