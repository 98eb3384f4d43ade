//! HTTP/1.1 on a socket, as little of it as the servers of these tests speak: whole messages with a
//! length or in chunks. By hand, because what they are for is to break it: an answer cut short, a
//! connection reset, and at any byte.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A client that says nothing for so long has left; a thread that waits for it should end with it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// A request or an answer: its first line in three words, its headers, its body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// `POST`, `/path`, `HTTP/1.1` or `HTTP/1.1`, `200`, `OK`.
    pub(crate) first: [String; 3],
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// An answer.
    pub(crate) fn answer(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let first = ["HTTP/1.1".to_owned(), status.to_string(), "-".to_owned()];
        Self { first, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn method(&self) -> &str {
        &self.first[0]
    }

    pub(crate) fn path(&self) -> &str {
        &self.first[1]
    }

    /// The value of a header, whose name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn without(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Reads a message; `None` at the end of the connection.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.trim_end().splitn(3, ' ').map(str::to_owned);
        let first = [(); 3].map(|()| words.next().unwrap_or_default());
        let mut message = Self { first, ..Self::default() };
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            message.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let len = message.header("content-length").and_then(|len| len.parse().ok());
        if message.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            message.body = read_chunks(stream)?;
        } else {
            message.body = vec![0; len.unwrap_or(0)];
            stream.read_exact(&mut message.body)?;
        }
        Ok(Some(message))
    }

    /// The message as it goes over the wire, with the length of its body.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.first.join(" ").into_bytes();
        let framing = ["content-length", "transfer-encoding", "connection"];
        for (name, value) in &self.headers {
            if !framing.contains(&name.to_ascii_lowercase().as_str()) {
                out.extend_from_slice(format!("\r\n{name}: {value}").as_bytes());
            }
        }
        // What has no body by its kind must not announce one.
        if self.path() != "304" {
            out.extend_from_slice(format!("\r\nContent-Length: {}", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let len = u64::from_str_radix(size, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no size of a chunk"))?;
        if len == 0 {
            // Trailers, up to an empty line.
            while stream.read_line(&mut line)? > 2 {}
            return Ok(body);
        }
        stream.by_ref().take(len).read_to_end(&mut body)?;
        stream.read_line(&mut line)?;
    }
}

/// Sends a request to a port of this machine and waits for its answer.
pub(crate) fn exchange(port: u16, request: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(crate::process::local(port))?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    stream.write_all(&request.bytes())?;
    let answer = Message::read(&mut BufReader::new(stream))?;
    answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Serves each connection in a thread of its own, until the process ends. Returns the port.
pub(crate) fn serve(
    connection: impl Fn(BufReader<TcpStream>) -> io::Result<()> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind(crate::process::local(0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let connection = Arc::new(connection);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let connection = Arc::clone(&connection);
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(IDLE_TIMEOUT));
                let _ = stream.set_nodelay(true);
                // A client that is killed leaves in the middle of a message: its own affair.
                let _ = connection(BufReader::new(stream));
            });
        }
    });
    port
}
