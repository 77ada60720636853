//! A Redis as the benchmark's target, through one connection for each caller, as its own benchmark does.
//!
//! A caller's requests leave in one write and their answers are read in order: what Redis calls pipelining. The client is ours and
//! does no more than that, so that what is measured is Redis and not a library.

use super::BenchArgs;
use super::request::{Answer, Request};
use super::target::{Failed, Stored};
use crate::args::Args;
use crate::exit::{Class, Failure};
use bytes::{Buf as _, BytesMut};
use rdb_client::{Bytes, Version};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Redis counts no versions. That a key is there shows by this one.
const THERE: Version = Version { era: 0, hlc: 1, node: 0 };

#[derive(Clone)]
pub(super) struct Redis {
    address: String,
    patience: Duration,
    /// For loading and checking.
    shared: Arc<Mutex<Connection>>,
}

pub(super) struct Connection {
    address: String,
    stream: TcpStream,
    /// An answer may yet come to what was given up: a new connection is needed, or it would be taken for another one's.
    broken: bool,
    patience: Duration,
    out: Vec<u8>,
    arrived: BytesMut,
}

/// An answer in Redis's protocol, RESP2: what `GET` and `SET` may be answered.
enum Reply {
    Done,
    Value(Option<Bytes>),
    Refused(String),
}

impl Redis {
    pub(super) async fn connect(args: &Args, bench: &BenchArgs) -> std::result::Result<Self, Failure> {
        if bench.consistency.is_some() {
            return Err(Failure::usage("--consistency is for flaredb and etcd"));
        }
        let address = args.endpoints.first().cloned().unwrap_or_default();
        let connection = Connection::open(&address, args.timeout).await?;
        Ok(Self { address, patience: args.timeout, shared: Arc::new(Mutex::new(connection)) })
    }

    pub(super) async fn open(&self) -> std::result::Result<Connection, Failure> {
        Connection::open(&self.address, self.patience).await
    }

    pub(super) async fn get_many(&self, keys: &[Bytes]) -> std::result::Result<Vec<Stored>, Failed> {
        let mut connection = self.shared.lock().await;
        keys.iter().for_each(|key| connection.say(&[b"GET", key]));
        connection.send().await.map_err(read_failed)?;
        let mut stored = Vec::with_capacity(keys.len());
        for _ in keys {
            match connection.read().await.map_err(read_failed)? {
                Reply::Value(value) => stored.push(value.map(|value| (value, THERE))),
                other => return Err(other.refused()),
            }
        }
        connection.finish();
        Ok(stored)
    }

    pub(super) async fn put_many(
        &self,
        records: Vec<(Bytes, Bytes)>,
    ) -> std::result::Result<Version, Failed> {
        let mut connection = self.shared.lock().await;
        records.iter().for_each(|(key, value)| connection.say(&[b"SET", key, value]));
        connection.send().await.map_err(write_failed)?;
        for _ in &records {
            match connection.read().await.map_err(write_failed)? {
                Reply::Done => {}
                other => return Err(other.refused()),
            }
        }
        connection.finish();
        Ok(THERE)
    }
}

impl Connection {
    async fn open(address: &str, patience: Duration) -> std::result::Result<Self, Failure> {
        let opened = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, Error>(stream)
        };
        match timeout(patience, opened).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok(Self {
                address: address.to_owned(),
                stream,
                broken: false,
                patience,
                out: Vec::new(),
                arrived: BytesMut::new(),
            }),
            Err(error) => {
                let message = format!("cannot reach Redis at {address} ({error})");
                Err(Failure::new(Class::Unreachable, message)
                    .hint("--endpoints names Redis's address, as in 127.0.0.1:6379"))
            }
        }
    }

    pub(super) async fn ask(
        &mut self,
        requests: &[Request],
        mut answered: impl FnMut(&Request, std::result::Result<Answer, Failed>),
    ) {
        for request in requests {
            match &request.value {
                None => self.say(&[b"GET", &request.name]),
                Some(value) => self.say(&[b"SET", &request.name, value]),
            }
        }
        let mut broken = self.send().await.err();
        for request in requests {
            let reply = match broken.take() {
                None => self.read().await,
                Some(error) => Err(error),
            };
            let is_write = request.value.is_some();
            answered(
                request,
                match reply {
                    Ok(Reply::Done) if is_write => Ok(Answer::Written(THERE)),
                    Ok(Reply::Value(value)) if !is_write => {
                        Ok(Answer::Read(value.map(|value| (value, THERE))))
                    }
                    Ok(other) => Err(other.refused()),
                    Err(error) => {
                        let failed = Failed { in_doubt: is_write, message: error.to_string() };
                        // What comes now could be the answer to any of them.
                        broken = Some(error);
                        Err(failed)
                    }
                },
            );
        }
        if broken.is_none() {
            self.finish();
        }
    }

    /// Adds a command to those that are sent next.
    fn say(&mut self, words: &[&[u8]]) {
        // Into memory: nothing can fail.
        let _ = write!(self.out, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(self.out, "${}\r\n", word.len());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    async fn send(&mut self) -> Result<()> {
        if self.broken {
            self.arrived.clear();
            self.stream = TcpStream::connect(&self.address).await?;
            self.stream.set_nodelay(true)?;
        }
        // Until the last answer is here.
        self.broken = true;
        let sent = timeout(self.patience, self.stream.write_all(&self.out)).await;
        self.out.clear();
        sent.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    /// All that was sent is answered.
    fn finish(&mut self) {
        self.broken = false;
    }

    async fn read(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = parse(&mut self.arrived)? {
                return Ok(reply);
            }
            let read = timeout(self.patience, self.stream.read_buf(&mut self.arrived)).await;
            if read.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Reply {
    fn refused(self) -> Failed {
        let message = match self {
            Reply::Refused(message) => message,
            Reply::Done | Reply::Value(_) => "Redis answered something else than it was asked".to_owned(),
        };
        Failed { in_doubt: false, message }
    }
}

/// Takes one answer out of what has arrived. `None`: it is not all there yet.
fn parse(arrived: &mut BytesMut) -> Result<Option<Reply>> {
    let Some(end) = arrived.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&arrived[..end]).into_owned();
    let Some((kind, rest)) = line.split_at_checked(1) else { return Err(ErrorKind::InvalidData.into()) };
    let reply = match kind {
        "+" => Reply::Done,
        "-" => Reply::Refused(rest.to_owned()),
        "$" if rest == "-1" => Reply::Value(None),
        "$" => {
            let length: usize = rest.parse().map_err(|_| Error::from(ErrorKind::InvalidData))?;
            if arrived.len() < end + 2 + length + 2 {
                return Ok(None);
            }
            arrived.advance(end + 2);
            let value = arrived.split_to(length).freeze();
            arrived.advance(2);
            return Ok(Some(Reply::Value(Some(value))));
        }
        _ => return Err(ErrorKind::InvalidData.into()),
    };
    arrived.advance(end + 2);
    Ok(Some(reply))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn read_failed(error: Error) -> Failed {
    Failed { in_doubt: false, message: error.to_string() }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn write_failed(error: Error) -> Failed {
    Failed { in_doubt: true, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_when_all_of_it_is_there() {
        let all = b"+OK\r\n$3\r\na\r\n\r\n$-1\r\n-ERR no\r\n";
        let mut arrived = BytesMut::new();
        let mut replies = Vec::new();
        for byte in all {
            arrived.extend_from_slice(&[*byte]);
            replies.extend(parse(&mut arrived).unwrap());
        }
        assert!(arrived.is_empty());
        let [Reply::Done, Reply::Value(Some(value)), Reply::Value(None), Reply::Refused(why)] = &replies[..]
        else {
            panic!("{} replies", replies.len());
        };
        assert_eq!((&value[..], why.as_str()), (&b"a\r\n"[..], "ERR no"));
        assert!(parse(&mut BytesMut::from(&b"?\r\n"[..])).is_err());
    }
}
