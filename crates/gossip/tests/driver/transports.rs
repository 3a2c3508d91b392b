//! Which way datagrams travel, and what is encrypted.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::sync::Arc;

use ringkit_gossip::driver::rustls::pki_types::PrivateKeyDer;
use ringkit_gossip::driver::rustls::server::WebPkiClientVerifier;
use ringkit_gossip::driver::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use ringkit_gossip::driver::{Tls, Transport};

use super::*;

fn tls() -> Tls {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let chain = || vec![certified.cert.der().clone()];
    let key = || PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(), key())
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(), key())
        .unwrap();
    Tls { client: Arc::new(client), server: Arc::new(server), server_name: None }
}

/// Where UDP is somebody else's, who hears what is sent there, and TCP is free.
fn taken_over_udp() -> (std::net::UdpSocket, SocketAddr) {
    loop {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        if std::net::TcpListener::bind(addr).is_ok() {
            return (socket, addr);
        }
    }
}

/// Each has had answers to its datagrams from all others.
async fn until_they_understand_each_other(peers: &[Peer]) {
    let num = peers.len();
    for peer in peers {
        let answered = async {
            loop {
                let members = peer.handle.call(|access| access.node().members()).await.unwrap();
                let understood = members.iter().filter(|member| member.own || member.rtt.is_some()).count();
                if (members.len(), understood) == (num, num) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(LIMIT, answered).await.is_ok(), "{} is not answered", peer.addr());
    }
}

#[tokio::test]
async fn a_cluster_needs_no_udp() {
    let sockets = RefCell::new(Vec::new());
    let over_tcp = |options: &mut Options| {
        let (socket, addr) = taken_over_udp();
        sockets.borrow_mut().push(socket);
        options.bind = vec![addr];
        options.transport = Transport::Tcp;
        options.config.swim.suspicion_timeout = LIMIT * 10;
    };
    let peers = cluster(3, over_tcp).await;
    write_and_see(&peers).await;
    for peer in &peers {
        peer.until_counted("datagrams come", |counts| &counts.datagrams_in, 10).await;
        assert!(peer.count(|counts| &counts.datagrams_out) > 0);
        assert_eq!(peer.count(|counts| &counts.datagram_errors), 0);
    }
    for socket in sockets.into_inner() {
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.recv_from(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    assert!(peers[2].handle.leave().await.told);
    for peer in &peers[..2] {
        peer.until("one has left", |state| state.members == 2).await;
    }
}

#[tokio::test]
async fn members_whose_datagrams_travel_in_different_ways_understand_each_other() {
    let number = Cell::new(0);
    let by_turns = |options: &mut Options| {
        options.transport = if number.get() % 2 == 0 { Transport::Tcp } else { Transport::Udp };
        number.set(number.get() + 1);
    };
    let peers = cluster(4, by_turns).await;
    write_and_see(&peers).await;
    until_they_understand_each_other(&peers).await;
}

#[tokio::test]
async fn keys_are_introduced_where_there_is_tls() {
    let tls = tls();
    let number = Cell::new(0_u8);
    let lenient = |options: &mut Options| {
        options.tls = Some(tls.clone());
        // One that has a key already, and two that have none.
        if number.replace(number.get() + 1) == 1 {
            let key = ClusterKey::from_bytes(&[1; 32]).unwrap();
            options.security.keyring = Keyring::new(vec![key]);
        }
    };
    let peers = cluster(3, lenient).await;
    write_and_see(&peers).await;
    until_they_understand_each_other(&peers).await;

    // Nobody in the cluster sends in clear over UDP, and nothing that comes so is believed.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut writer = DatagramWriter::new(1400, Header::new(label_hash(""), 1));
    assert!(writer.try_push_digest(1, &[(SmolStr::default(), 1)]));
    let forged = writer.finish();
    for peer in &peers {
        socket.send_to(&forged, peer.addr()).await.unwrap();
        peer.until_seen("it is refused", |seen| seen.refused.contains_key("unsealed")).await;
        peer.until_joined(3).await;
    }
}

#[tokio::test]
async fn a_cluster_with_tls_keeps_others_out() {
    let tls = tls();
    let encrypted = |options: &mut Options| {
        options.tls = Some(tls.clone());
        options.transport = Transport::Tcp;
    };
    let peers = cluster(3, encrypted).await;
    write_and_see(&peers).await;
    let answer = talk(peers[0].addr(), b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");

    let reason = reason_of_failure(options("in-clear", &[peers[0].addr()])).await;
    assert!(reason.contains("TLS"), "{reason}");
    let mut other_authority = options("other-authority", &[peers[0].addr()]);
    encrypted(&mut other_authority);
    other_authority.tls = Some(self::tls());
    let reason = reason_of_failure(other_authority).await;
    assert!(reason.contains("certificate"), "{reason}");
    peers[0].until_joined(3).await;
}
