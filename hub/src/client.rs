//! The command line's way to the hub: its control socket when one runs, else the file.
//!
//! In: a [`Request`]. Out: [`Reply`] lines in order. Blocking, on the caller's thread.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};

use crate::control::{REPLY_BYTES_MAX, Reply, Request, SOCKET_NAME};
use crate::direct;

/// Asks the running hub, or answers from the file where none runs. Every reply goes to
/// `on`; an error from `on` ends the exchange. [`Reply::Failed`] comes back as an error.
///
/// # Errors
/// What the hub or the store says, or that neither can be reached.
pub fn ask(
    data_dir: &Path,
    request: &Request,
    on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = data_dir.join(SOCKET_NAME);
    match UnixStream::connect(&path) {
        Ok(stream) => exchange(stream, request, on),
        // No socket, or one that a killed hub left behind.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            direct::answer(data_dir, request, on)
        }
        Err(e) => Err(e).with_context(|| {
            format!("connecting to the hub at {} (run as the hub's user)", path.display())
        }),
    }
}

fn exchange(
    mut stream: UnixStream,
    request: &Request,
    on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(request).context("encoding the request")?;
    line.push(b'\n');
    stream.write_all(&line).context("sending the request to the hub")?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(REPLY_BYTES_MAX).unwrap_or(u64::MAX);
        reader.by_ref().take(limit).read_until(b'\n', &mut line).context("reading from the hub")?;
        if line.last() != Some(&b'\n') {
            bail!("the hub ended the conversation early (stopped?); ask again");
        }
        match serde_json::from_slice(&line).context("the hub's answer is of another version")? {
            Reply::Failed { error } => bail!(error),
            done @ Reply::Done { .. } => return on(done),
            other => on(other)?,
        }
    }
}
