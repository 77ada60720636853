//! A client that no library would be: it speaks HTTP/2 frame by frame, as much of it as it likes and in which order it likes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What every client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds of frames, as the protocol numbers them.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
/// Flags of frames.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// The error by which a client is told that it does too much.
pub const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: u32 = 8;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let stream = self.stream.to_be_bytes();
        [&length[1..], &[self.kind, self.flags], &stream, &self.payload].concat()
    }

    /// For a frame that tells an error: which.
    pub fn error(&self) -> u32 {
        let from = if self.kind == GO_AWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[from..from + 4].try_into().unwrap())
    }
}

pub fn settings() -> Frame {
    Frame { kind: SETTINGS, flags: 0, stream: 0, payload: Vec::new() }
}

pub fn ping() -> Frame {
    Frame { kind: PING, flags: 0, stream: 0, payload: vec![0; 8] }
}

pub fn reset(stream: u32) -> Frame {
    Frame { kind: RESET, flags: 0, stream, payload: CANCEL.to_be_bytes().to_vec() }
}

/// The headers of a gRPC call, each as a literal.
pub fn call(stream: u32, path: &str) -> Frame {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "node"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut payload = Vec::new();
    for (name, value) in headers {
        payload.push(0);
        for text in [name, value] {
            payload.push(u8::try_from(text.len()).unwrap());
            payload.extend_from_slice(text.as_bytes());
        }
    }
    Frame { kind: HEADERS, flags: END_HEADERS, stream, payload }
}

/// A message, whole, and with it the end of what is asked.
pub fn message(stream: u32, message: &impl prost::Message) -> Frame {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Frame { kind: DATA, flags: END_STREAM, stream, payload: [&[0][..], &length, &message].concat() }
}

/// A connection.
pub struct Hostile {
    pub stream: TcpStream,
}

impl Hostile {
    /// One that has said nothing yet.
    pub async fn connect(port: u16) -> Self {
        Self { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap() }
    }

    /// One that has begun as it should.
    pub async fn begin(port: u16) -> Self {
        let mut hostile = Self::connect(port).await;
        hostile.say(&[PREFACE, &settings().bytes()].concat()).await;
        hostile
    }

    /// Whether it could be said.
    pub async fn say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// The next frame; none once the connection is closed.
    pub async fn hear(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Waits for the answer to a ping, by which all that was said before has been heard.
    pub async fn is_heard(&mut self) -> bool {
        if !self.say(&ping().bytes()).await {
            return false;
        }
        while let Some(frame) = self.hear().await {
            if frame.kind == PING && frame.flags == ACK {
                return true;
            }
        }
        false
    }

    /// Whether the node has closed it. Throws away what has come.
    pub fn is_closed(&self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }
}
