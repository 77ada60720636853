//! A node's pages over HTTP, such as its metrics.

use anyhow::{Context as _, Result, bail};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A page takes no longer on a machine that can be measured on at all.
const LIMIT: Duration = Duration::from_secs(10);

/// The body of a page of the server at that address.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let page =
        timeout(LIMIT, ask(address, path)).await.with_context(|| format!("{path} took {LIMIT:?}"))??;
    match page.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("{path} was answered by {:?}", page.lines().next().unwrap_or_default()),
    }
}

async fn ask(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the body comes whole, and the connection ends with it.
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}
