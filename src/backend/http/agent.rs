//! The HTTP crate as it is used here; besides, only `wire.rs` names it. Its settings are all made on purpose, its connections are
//! [`Line`]s, and its errors are told in this crate's words.
//!
//! Names are looked up in the calling thread: a backend starts no thread, and the system's resolver has
//! limits of its own. The engine waits for its threads no longer than a call's timeout.

use std::fmt;
use std::io::ErrorKind;
use std::net::ToSocketAddrs;
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::{HeaderMap, HeaderValue, Method, Uri};
use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector,
};
use ureq::{Proxy, ProxyProtocol, SendBody};

use crate::backend::http::handover::{BodySource, Lines};
use crate::backend::http::incoming::Incoming;
use crate::backend::http::line::{Limits, cause, failed};
use crate::backend::http::past::Past;
use crate::backend::http::route::{bypasses, place};
use crate::backend::http::veil::Veil;
use crate::backend::http::wire::{Outside, Wires};
use crate::backend::http::{Answer, Request, Sink, Stage, Transport, TransportError};
use crate::config::HttpConfig;
use crate::error::{Error, Result};
use crate::limits::{ANSWER_HEAD_BYTES_MAX, IDLE_CONNECTION_AGE_MAX, RECEIVE_STEP_BYTES};
use crate::sync::Arc;

/// What a request comes to.
type Outcome<T> = Result<T, TransportError>;

/// Idle connections of an agent for services that are asked now and then.
const DIRECT_CONNECTIONS_IDLE_MAX: usize = 2;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Longest timeout that is kept; clocks overflow on longer ones.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Carries requests over HTTP/1.1, with and without TLS, and keeps connections for the next ones.
pub(crate) struct HttpAgent {
    /// Past any proxy.
    straight: ureq::Agent,
    /// By the proxy for https and for http, where there is one. Agents of their own: ureq keeps no
    /// connection of a request whose proxy is not its agent's.
    by_proxy: [Option<ureq::Agent>; 2],
    lines: Arc<Lines>,
    no_proxy: Vec<String>,
    response_timeout: Duration,
}

impl HttpAgent {
    /// An agent that keeps up to `connections_idle_max` connections.
    ///
    /// # Errors
    /// `InvalidInput` if the file of certificates or the proxy is not usable.
    pub fn new(http: &HttpConfig, connections_idle_max: usize) -> Result<HttpAgent> {
        let roots = http.ca_file.as_deref().map(read_certificates).transpose()?;
        let tls = TlsConfig::builder().root_certs(roots.unwrap_or(RootCerts::WebPki)).build();
        let lines = Arc::new(Lines::default());
        let agent = |proxy| agent(http, connections_idle_max, &tls, &lines, proxy);
        let by_proxy = |https| -> Result<Option<ureq::Agent>> {
            let proxy = http.proxy_for(https).map(|url| parse_proxy(url.expose())).transpose()?;
            Ok(proxy.map(|proxy| agent(Some(proxy))))
        };
        let no_proxy = http.no_proxy.as_deref().unwrap_or_default().split(',');
        Ok(HttpAgent {
            straight: agent(None),
            by_proxy: [by_proxy(true)?, by_proxy(false)?],
            no_proxy: no_proxy.map(|host| host.trim().to_ascii_lowercase()).collect(),
            response_timeout: http.response_timeout,
            lines,
        })
    }

    /// An agent that goes past the proxy, for the metadata services of the machine itself.
    ///
    /// # Errors
    /// As [`new`](HttpAgent::new).
    pub fn direct(http: &HttpConfig) -> Result<HttpAgent> {
        let http = HttpConfig { proxy: None, proxy_http: None, ..http.clone() };
        HttpAgent::new(&http, DIRECT_CONNECTIONS_IDLE_MAX)
    }

    /// Connections made so far.
    #[cfg(test)]
    pub fn connections_opened(&self) -> u64 {
        self.lines.opened()
    }

    /// Bytes of bodies that were copied before they were sent: all but those over plain TCP.
    #[cfg(test)]
    pub fn copied_bytes(&self) -> u64 {
        self.lines.copied_bytes()
    }

    fn exchange(&self, request: &Request<'_>, sink: Sink<'_>) -> Outcome<Answer> {
        let idle_timeout = Some(self.idle_timeout(request));
        let limits = Limits { idle_timeout, until: request.deadline.instant() };
        let mut source = BodySource::new(&self.lines, request.body, limits);
        let past = matches!(sink, Sink::Into(_)) && self.is_plain(&request.uri);
        let (mut uri, mut headers) = (request.uri.clone(), request.headers.clone());
        let veil = Veil::over(&request.method, &mut uri, &mut headers);
        self.lines.begin(past, veil);
        let response = match request.body.bytes() {
            0 => self.run(request, uri, headers, SendBody::none()),
            _ => self.run(request, uri, headers, SendBody::from_reader(&mut source)),
        };
        let past = Past::of(self.lines.end(), limits);
        let response = response.map_err(|error| exchange_error(error, Stage::Send))?;
        receive(response, request, sink, past)
    }

    /// Whether a request's connection carries its answer as it is: neither TLS nor a proxy is in between.
    fn is_plain(&self, uri: &::http::Uri) -> bool {
        uri.scheme_str() == Some("http") && std::ptr::eq(self.agent_for(uri), &self.straight)
    }

    /// Runs a request with what of its URI and its headers may be seen.
    fn run(
        &self,
        request: &Request<'_>,
        uri: Uri,
        headers: HeaderMap,
        body: SendBody<'_>,
    ) -> Result<::http::Response<ureq::Body>, ureq::Error> {
        let body_bytes = request.body.bytes();
        let mut message = ::http::Request::new(body);
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        *message.headers_mut() = headers;
        let has_length =
            body_bytes > 0 || [Method::PUT, Method::POST, Method::PATCH].contains(&request.method);
        if has_length && !request.headers.contains_key(TRANSFER_ENCODING) {
            message.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body_bytes));
        }
        let remaining = request.deadline.instant().map(|_| request.deadline.remaining());
        let idle = self.idle_timeout(request);
        let config = self
            .agent_for(&request.uri)
            .configure_request(message)
            .timeout_global(remaining.map(|remaining| remaining.min(TIMEOUT_MAX)))
            .timeout_per_read(Some(idle))
            .timeout_per_write(Some(idle));
        self.agent_for(&request.uri).run(config.build())
    }

    fn agent_for(&self, uri: &::http::Uri) -> &ureq::Agent {
        let [https, http] = &self.by_proxy;
        let by_proxy = if uri.scheme_str() == Some("https") { https } else { http };
        let straight = uri.host().is_some_and(|host| bypasses(&self.no_proxy, host));
        by_proxy.as_ref().filter(|_| !straight).unwrap_or(&self.straight)
    }

    fn idle_timeout(&self, request: &Request<'_>) -> Duration {
        request.idle_timeout.unwrap_or(self.response_timeout).min(TIMEOUT_MAX)
    }
}

impl Transport for HttpAgent {
    fn send(&self, request: &Request<'_>, sink: Sink<'_>) -> Outcome<Answer> {
        let place = place(&request.uri);
        if request.deadline.expired() {
            let detail = format!("{place}: no time is left");
            return Err(TransportError { stage: Stage::Connect, timed_out: true, detail });
        }
        self.exchange(request, sink).map_err(|mut error| {
            // The others are named where they arise: a proxy's place may be meant.
            if matches!(error.stage, Stage::Send | Stage::Receive | Stage::Request) {
                error.detail = format!("{place}: {}", error.detail);
            }
            error
        })
    }
}

/// An agent of ours, by this proxy or past all. ureq's own choices are all set on purpose.
fn agent(
    http: &HttpConfig,
    connections_idle_max: usize,
    tls: &TlsConfig,
    lines: &Arc<Lines>,
    proxy: Option<Proxy>,
) -> ureq::Agent {
    let by_proxy = proxy.is_some();
    let config = Config::builder()
        .tls_config(tls.clone())
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("syncline/", env!("CARGO_PKG_VERSION")))
        .accept("")
        .accept_encoding("identity")
        .timeout_connect(Some(http.connect_timeout.min(TIMEOUT_MAX)))
        .max_response_header_size(ANSWER_HEAD_BYTES_MAX)
        .input_buffer_size(RECEIVE_STEP_BYTES)
        .output_buffer_size(RECEIVE_STEP_BYTES)
        .max_idle_connections(connections_idle_max)
        .max_idle_connections_per_host(connections_idle_max)
        .max_idle_age(IDLE_CONNECTION_AGE_MAX)
        .build();
    let chain = ().chain(ConnectProxyConnector::default()).chain(Wires { lines: lines.clone() });
    let chain =
        Setup { chain: chain.chain(RustlsConnector::default()), lines: lines.clone(), by_proxy };
    ureq::Agent::with_parts(config, chain, Names)
}

fn parse_proxy(url: &str) -> Result<Proxy> {
    let proxy = Proxy::new(url).ok();
    let usable = |proxy: &Proxy| {
        matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https)
            && !proxy.host().is_empty()
    };
    // The text is not shown: it may carry a password.
    proxy.filter(usable).ok_or_else(|| {
        Error::invalid("configure", "the proxy is not usable").with_remedy(
            "use http://[user:password@]host:port, with other characters than letters and digits \
             in user and password as %XX",
        )
    })
}

fn read_certificates(path: &std::path::Path) -> Result<RootCerts> {
    let unusable = |what: String| {
        Error::invalid("configure", format!("CA file {}: {what}", path.display()))
            .with_remedy("name a PEM file with the certificates of the authorities to trust")
    };
    let pem = std::fs::read(path).map_err(|e| unusable(cause(&e)))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(unusable("is not PEM".to_owned())),
        }
    }
    if certificates.is_empty() {
        return Err(unusable("holds no certificate".to_owned()));
    }
    Ok(certificates.into())
}

fn receive(
    response: ::http::Response<ureq::Body>,
    request: &Request<'_>,
    sink: Sink<'_>,
    past: Option<Past>,
) -> Outcome<Answer> {
    let (mut head, body) = response.into_parts();
    let declared_bytes = match &past {
        Some(past) => {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(past.body_bytes()));
            Some(past.body_bytes())
        }
        None => body.content_length(),
    };
    let broken = |error| exchange_error(ureq::Error::from(error), Stage::Receive);
    let incoming = Incoming::new(body.into_reader(), &broken, request.progress, past);
    let (status, headers) = (head.status, head.headers);
    incoming.take(
        Answer { status, headers, body: Vec::new(), filled_bytes: 0 },
        declared_bytes,
        sink,
    )
}

/// An error of sending and receiving. A time that is over is told as of the stage `reached`.
fn exchange_error(error: ureq::Error, reached: Stage) -> TransportError {
    use ureq::Error as E;
    let (stage, timed_out, detail) = match error {
        E::Io(e) => match e.downcast::<TransportError>() {
            Ok(known) => return known,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                (Stage::Receive, false, "closed before the answer was complete".to_owned())
            }
            Err(e) => (Stage::Receive, false, cause(&e)),
        },
        E::Timeout(_) => (reached, true, "the request's time is over".to_owned()),
        // The crate's own text has the URI in it.
        E::BadUri(_) => (Stage::Request, false, "not a usable URI".to_owned()),
        E::Http(e) => (Stage::Request, false, e.to_string()),
        E::LargeResponseHeader(_, bytes_max) => {
            (Stage::Receive, false, format!("the answer's head exceeds {bytes_max} bytes"))
        }
        // Nothing in our requests is against the protocol.
        E::Protocol(e) => (Stage::Receive, false, format!("not an answer in HTTP: {e}")),
        e => (Stage::Receive, false, e.to_string()),
    };
    TransportError { stage, timed_out, detail }
}

/// An error of making the connection to `uri`, which may be the proxy's.
fn setup_error(error: ureq::Error, uri: &Uri) -> ureq::Error {
    use ureq::Error as E;
    let late = "no connection in the time allowed for it".to_owned();
    let (stage, timed_out, detail) = match error {
        E::Io(e) => match e.downcast::<TransportError>() {
            Ok(known) => match known.stage {
                Stage::Send | Stage::Receive if known.timed_out => (Stage::Connect, true, late),
                Stage::Send | Stage::Receive => (Stage::Connect, false, known.detail),
                _ => return failed(known.stage, known.timed_out, known.detail).into(),
            },
            Err(e) if e.kind() == ErrorKind::InvalidData => (Stage::Tls, false, e.to_string()),
            Err(e) if e.kind() == ErrorKind::TimedOut => (Stage::Connect, true, late),
            Err(e) => (Stage::Connect, false, cause(&e)),
        },
        E::Timeout(_) => (Stage::Connect, true, late),
        E::Rustls(e) => (Stage::Tls, false, e.to_string()),
        E::Tls(text) => (Stage::Tls, false, text.to_owned()),
        e => (Stage::Connect, false, e.to_string()),
    };
    failed(stage, timed_out, format!("{}: {detail}", place(uri))).into()
}

/// Makes connections: by the chain in it, with the place in its errors.
#[derive(Debug)]
struct Setup<C> {
    chain: C,
    lines: Arc<Lines>,
    /// Whether its agent goes by a proxy: then the way to that one is made here as well, without a proxy.
    by_proxy: bool,
}

impl<C: Connector> Connector for Setup<C> {
    type Out = Outside<C::Out>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let details = ConnectionDetails {
            // Every request has timeouts of its own; but TLS is the agent's, and its settings,
            // certificates and sessions are to be kept.
            request_level: false,
            uri: details.uri,
            addrs: details.addrs.clone(),
            config: details.config,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let made = self.chain.connect(&details, chained);
        let made = made.map_err(|error| setup_error(error, details.uri))?;
        let is_outermost = details.config.proxy().is_some() == self.by_proxy;
        let lines = self.lines.clone();
        Ok(made.map(|inside| Outside { lines, inside, is_outermost }))
    }
}

/// Looks names up.
#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let place = place(uri);
        let unknown =
            |what: String| failed(Stage::Resolve, false, format!("{place}: {what}")).into();
        let mut found = self.empty();
        let addresses = place.to_socket_addrs().map_err(|e| unknown(e.to_string()))?;
        addresses.take(ADDRESSES_MAX).for_each(|address| found.push(address));
        if found.is_empty() {
            Err(unknown("the name has no address".to_owned()))
        } else {
            Ok(found)
        }
    }
}

impl fmt::Debug for HttpAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAgent").field("lines", &self.lines).finish_non_exhaustive()
    }
}
