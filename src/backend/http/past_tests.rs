//! Bodies that go past the agent, from servers that send them in all kinds of ways.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use ::http::Method;
use proptest::prelude::*;

use crate::backend::http::agent_tests::{agent, request};
use crate::backend::http::test_server::{pattern, read_request, serve};
use crate::backend::http::{Answer, Body, HttpAgent, Sink, Stage, Transport, TransportError};

const BODY_BYTES: usize = 300_000;

fn get_into(
    agent: &HttpAgent,
    address: SocketAddr,
    memory: &mut [u8],
) -> Result<Answer, TransportError> {
    let uri = format!("http://{address}/key");
    agent.send(&request(Method::GET, &uri, Body::default()), Sink::Into(memory))
}

/// A server that answers every request with these pieces, with a pause after each of them.
fn answering_in(pieces: Vec<Vec<u8>>) -> SocketAddr {
    serve(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            for piece in &pieces {
                if stream.write_all(piece).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
    })
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the answer is cut, the body arrives, its length is told, and the connection serves on.
    #[test]
    fn a_body_arrives_however_it_is_cut(
        cuts in prop::collection::vec(prop_oneof![0_usize..120, 0..BODY_BYTES], 0..4),
        bytes in prop_oneof![Just(BODY_BYTES), 262_100_usize..262_200, Just(1)],
        room in 0_usize..3,
    ) {
        let body = pattern(bytes, 7);
        let whole = answer(&body);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < whole.len()).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([whole.len()]);
        let pieces = [0].into_iter().chain(cuts.iter().copied()).zip(ends);
        let agent = agent();
        let address = answering_in(pieces.map(|(from, to)| whole[from..to].to_vec()).collect());
        for _ in 0..2 {
            let mut memory = vec![0; bytes + room];
            let answer = get_into(&agent, address, &mut memory).unwrap();
            prop_assert_eq!(answer.filled_bytes, bytes);
            let told = bytes.to_string();
            prop_assert_eq!(answer.header("content-length"), Some(told.as_str()));
            prop_assert!(memory[..bytes] == body);
        }
        prop_assert_eq!(agent.connections_opened(), 1);
    }
}

#[test]
fn a_body_that_ends_early_is_an_error_of_receiving() {
    let whole = answer(&pattern(BODY_BYTES, 7));
    for sent in [whole.len() - 1, whole.len() / 2, 100] {
        let part = whole[..sent].to_vec();
        let address = serve(move |mut stream, _| {
            read_request(&mut stream);
            stream.write_all(&part).unwrap();
        });
        let error = get_into(&agent(), address, &mut vec![0; BODY_BYTES]).unwrap_err();
        assert_eq!((error.stage, error.timed_out), (Stage::Receive, false), "{error:?}");
    }
}

#[test]
fn a_body_that_stands_still_ends_in_time() {
    let whole = answer(&pattern(BODY_BYTES, 7));
    let address = serve(move |mut stream, _| {
        read_request(&mut stream);
        stream.write_all(&whole[..whole.len() - 1]).unwrap();
        read_request(&mut stream);
    });
    let uri = format!("http://{address}/key");
    let mut request = request(Method::GET, &uri, Body::default());
    request.idle_timeout = Some(Duration::from_millis(100));
    let error = agent().send(&request, Sink::Into(&mut vec![0; BODY_BYTES])).unwrap_err();
    assert_eq!((error.stage, error.timed_out), (Stage::Receive, true), "{error:?}");
}

/// What comes beyond the declared length is not taken for the next answer.
#[test]
fn what_follows_a_body_spends_the_connection() {
    let body = pattern(BODY_BYTES, 7);
    let mut whole = answer(&body);
    whole.extend(answer(b"of nobody"));
    for pause in [false, true] {
        let (agent, body) = (agent(), body.clone());
        let cut = if pause { whole.len() - 10 } else { 0 };
        let address = answering_in(vec![whole[..cut].to_vec(), whole[cut..].to_vec()]);
        for connections in 1..=2 {
            let mut memory = vec![0; BODY_BYTES];
            assert_eq!(get_into(&agent, address, &mut memory).unwrap().filled_bytes, BODY_BYTES);
            assert!(memory == body);
            thread::sleep(Duration::from_millis(20));
            assert_eq!(agent.connections_opened(), connections);
        }
    }
}

#[test]
fn a_body_longer_than_the_memory_is_refused() {
    let agent = agent();
    let address = answering_in(vec![answer(&pattern(BODY_BYTES, 7))]);
    for connections in 1..=2 {
        let mut memory = vec![1; BODY_BYTES - 1];
        let error = get_into(&agent, address, &mut memory).unwrap_err();
        assert_eq!(error.stage, Stage::Receive);
        assert!(memory.iter().all(|byte| *byte == 1));
        assert_eq!(agent.connections_opened(), connections);
    }
}

/// The agent takes a line that ends without a carriage return for a line; the body is not to be searched for
/// the end of such a head.
#[test]
fn a_head_of_bare_line_feeds_goes_the_usual_way() {
    let mut body = pattern(BODY_BYTES, 7);
    body[10..14].copy_from_slice(b"\r\n\r\n");
    let head = format!("HTTP/1.1 200 OK\nContent-Length: {BODY_BYTES}\n\n");
    let address = answering_in(vec![[head.as_bytes(), &body].concat()]);
    let mut memory = vec![0; BODY_BYTES];
    let uri = format!("http://{address}/key");
    let mut request = request(Method::GET, &uri, Body::default());
    request.idle_timeout = Some(Duration::from_secs(2));
    let answer = agent().send(&request, Sink::Into(&mut memory)).unwrap();
    assert_eq!(answer.filled_bytes, BODY_BYTES);
    assert!(memory == body);
}
