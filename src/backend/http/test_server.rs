//! Servers on the loopback for tests: each connection is a script of what no server does on demand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a server speaks over.
pub trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// Runs `script` for each connection, with its number.
pub fn serve(script: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    crate::watch::watch();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (script, stream) = (script.clone(), stream.unwrap());
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || script(stream, number));
        }
    });
    address
}

/// A server that sends `answer` to the first request of each connection, and then closes.
pub fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    serve(move |mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(&answer);
    })
}

/// A request as it arrived.
#[derive(Debug)]
pub struct Arrived {
    pub head: String,
    pub body: Vec<u8>,
}

impl Arrived {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// Reads up to the empty line; `None` at the end of the connection.
pub fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Reads a request, its body by length or in chunks; `None` at the end of the connection.
pub fn read_request(stream: &mut impl Read) -> Option<Arrived> {
    let head = read_head(stream)?;
    let mut arrived = Arrived { head, body: Vec::new() };
    if arrived.header("transfer-encoding").is_some() {
        loop {
            let chunk_bytes = usize::from_str_radix(read_line(stream)?.trim(), 16).unwrap();
            let start = arrived.body.len();
            arrived.body.resize(start + chunk_bytes, 0);
            stream.read_exact(&mut arrived.body[start..]).ok()?;
            assert_eq!(read_line(stream)?, "\r\n");
            if chunk_bytes == 0 {
                return Some(arrived);
            }
        }
    }
    let body_bytes = arrived.header("content-length").map_or(0, |bytes| bytes.parse().unwrap());
    arrived.body = vec![0; body_bytes];
    stream.read_exact(&mut arrived.body).ok()?;
    Some(arrived)
}

fn read_line(stream: &mut impl Read) -> Option<String> {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        line.push(char::from(byte[0]));
    }
    Some(line)
}

/// Answers each request with its own body, until the connection ends.
pub fn echo(mut stream: impl Stream) {
    while let Some(arrived) = read_request(&mut stream) {
        let bytes = arrived.body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&arrived.body)).is_err()
        {
            return;
        }
        stream.flush().unwrap();
    }
}

/// Reads the CONNECT of a client and accepts it. The stream is the target's from then on.
pub fn accept_tunnel<S: Stream>(mut stream: S) -> (S, String) {
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("CONNECT "), "{head}");
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    stream.flush().unwrap();
    (stream, head)
}

/// An authority, and a server's certificate of it.
pub struct Authority {
    pub ca_file: PathBuf,
    server: Arc<ServerConfig>,
    _dir: tempfile::TempDir,
}

impl Authority {
    /// For a server of this name or address.
    pub fn new(server_name: &str) -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let server_key = rcgen::KeyPair::generate().unwrap();
        let server = rcgen::CertificateParams::new(vec![server_name.to_owned()]).unwrap();
        let certificate = server.signed_by(&server_key, &issuer).unwrap();
        let certificate = CertificateDer::from(certificate.der().to_vec());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Authority { ca_file, server: Arc::new(server), _dir: dir }
    }

    /// What makes TLS of a connection to a server.
    pub fn server(&self) -> TlsServer {
        TlsServer(self.server.clone())
    }
}

#[derive(Clone)]
pub struct TlsServer(Arc<ServerConfig>);

impl TlsServer {
    pub fn accept<S: Stream>(&self, stream: S) -> StreamOwned<ServerConnection, S> {
        StreamOwned::new(ServerConnection::new(self.0.clone()).unwrap(), stream)
    }
}

/// Bytes that repeat at no distance that matters.
pub fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}
