//! What the client carries along in eventual mode, against a fake cluster that shows what it was sent: tokens with session
//! reads, the highest version with writes, each session its own; and that a write which is done on one node is called so.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fake;

use fake::{Cluster, Eventual};
use rdb_client::{Acks, Bytes, Client, Consistency, Namespace, Options, Transport, WriteError};
use rdb_proto::session::Token;
use rdb_proto::v1;

const TRANSPORTS: [Transport; 2] = [Transport::Pipe, Transport::Unary];

fn token(sequence: u64) -> Token {
    Token { namespace: 16, era: 1, seen: [((1, 1), sequence)].into() }
}

async fn eventual(transport: Transport) -> (Cluster, Namespace) {
    let cluster = Cluster::start(1);
    *cluster.world.eventual.lock() = Some(Eventual { shown: token(5), ..Eventual::default() });
    let options = Options { transport, sessions: false, ..Options::new(cluster.endpoints()) };
    let client = Client::connect(options).await.unwrap();
    (cluster, client.namespace("test"))
}

fn show(cluster: &Cluster, sequence: u64) {
    cluster.world.eventual.lock().as_mut().unwrap().shown = token(sequence);
}

/// What the last request has brought.
fn brought(cluster: &Cluster) -> (Bytes, Option<v1::Version>, v1::Acks) {
    cluster.world.eventual.lock().as_ref().unwrap().brought.last().unwrap().clone()
}

#[tokio::test]
async fn what_was_shown_goes_along() {
    for transport in TRANSPORTS {
        let (cluster, test) = eventual(transport).await;
        let session = test.clone().with_consistency(Consistency::Session);
        session.get("a").await.unwrap();
        assert!(brought(&cluster).0.is_empty(), "nothing was seen before");
        let written = test.put("a", "1").await.unwrap();
        assert_eq!(brought(&cluster).1, None);
        show(&cluster, 4);
        session.get("a").await.unwrap();
        assert_eq!(brought(&cluster).0, token(5).encode());
        show(&cluster, 9);
        test.get("a").await.unwrap();
        assert!(brought(&cluster).0.is_empty(), "a read that is no session's needs none");
        assert_eq!(session.session_token(), token(9).encode(), "but it has shown something");
        test.put("a", "2").await.unwrap();
        assert_eq!(brought(&cluster).1, Some(written.version.into()));
    }
}

#[tokio::test]
async fn sessions_are_apart_until_one_is_handed_on() {
    for transport in TRANSPORTS {
        let (cluster, test) = eventual(transport).await;
        let session = test.clone().with_consistency(Consistency::Session);
        let (one, other) = (session.clone().new_session(), session.new_session());
        one.put("a", "1").await.unwrap();
        other.get("b").await.unwrap();
        assert!(brought(&cluster).0.is_empty());
        show(&cluster, 2);
        other.resume(&one.session_token()).unwrap();
        other.get("b").await.unwrap();
        assert_eq!(brought(&cluster).0, token(5).encode());
        assert!(other.resume(b"no token").is_err());
        assert!(test.session_token().is_empty());
    }
}

#[tokio::test]
async fn a_write_that_is_done_on_one_node_is_called_so() {
    for transport in TRANSPORTS {
        let (cluster, test) = eventual(transport).await;
        let error = test.clone().with_acks(Acks::All).put("a", "1").await.unwrap_err();
        let WriteError::DoneHere(version, error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains("on 1 of 3"), "{error}");
        assert_eq!(
            (brought(&cluster).2, cluster.writes_applied()),
            (v1::Acks::All, 1),
            "it is not sent again"
        );
        assert_eq!(test.session_token(), token(5).encode(), "it is there, and was seen");
        assert_eq!(test.get("a").await.unwrap().unwrap().version, version);
    }
}
