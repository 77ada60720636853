//! Pages that servers tell of themselves, without a library: two are looked at, and only here.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn is_ok(address: &str, path: &str) -> bool {
    page(address, path).is_ok_and(|page| page.split(' ').nth(1) == Some("200"))
}

/// The page and its headers; nothing where there is none.
pub(super) fn body_of(address: &str, path: &str) -> String {
    page(address, path).unwrap_or_default()
}

fn page(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
