//! What a connection that came in is, by its first byte, and what those hear that are nothing of ours.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::counts::one;
use super::shared::{Connection, Shared, within};
use crate::member::SEALED_MAGIC;
use crate::wire::MAGIC;

/// The first byte of a stream of datagrams.
pub(super) const PACKETS: u8 = 0x9d;
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long the other end may go on after it was told all: what it sends meanwhile is thrown away. Without that, the system would
/// cut the connection, and what it was told may not arrive.
const LINGER: Duration = Duration::from_secs(2);

const ADVICE: &str = "this is a gossip port, where members of the cluster talk to each other. Metrics, status pages and all else \
                      that speaks HTTP are at the http port of this process\n";

/// What a connection is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Member,
    Packets,
    Http,
    Tls,
    Unknown,
}

impl First {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            MAGIC | SEALED_MAGIC => Self::Member,
            PACKETS => Self::Packets,
            // GET, PUT, POST, PATCH, PRI of HTTP/2, HEAD, OPTIONS, DELETE, CONNECT.
            b'G' | b'P' | b'H' | b'O' | b'D' | b'C' => Self::Http,
            TLS_HANDSHAKE => Self::Tls,
            _ => Self::Unknown,
        }
    }
}

/// Counts a connection that is nothing of ours, and closes it.
pub(super) async fn turn_away(mut connection: Connection, what: First, peer: SocketAddr, shared: &Shared) {
    let (counts, remarks) = (&shared.counts, &shared.remarks);
    match what {
        First::Http => {
            one(&counts.http_connections);
            if remarks.http.is_due() {
                tracing::warn!(%peer, "somebody speaks HTTP to the gossip port: closed");
            }
            let answer = answer();
            let say = async {
                connection.write_all(answer.as_bytes()).await?;
                connection.shutdown().await
            };
            if within(shared.write_timeout, say).await.is_ok() {
                linger(&mut connection).await;
            }
        }
        First::Tls => {
            one(&counts.tls_connections);
            if remarks.tls.is_due() {
                tracing::warn!(%peer, "somebody speaks TLS to the gossip port, where it is not enabled: closed");
            }
        }
        First::Member | First::Packets => {
            one(&counts.unknown_connections);
            if remarks.unknown.is_due() {
                tracing::warn!(%peer, "a member that does not use TLS reached the gossip port, where it is enabled: closed");
            }
        }
        First::Unknown => {
            one(&counts.unknown_connections);
            if remarks.unknown.is_due() {
                tracing::warn!(%peer, "something unknown reached the gossip port: closed");
            }
        }
    }
}

fn answer() -> String {
    let len = ADVICE.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len}\r\n\
         Connection: close\r\n\r\n{ADVICE}"
    )
}

/// Waits a little for the other end to close, throwing away what it sends.
pub(super) async fn linger(reader: &mut (impl AsyncRead + Unpin)) {
    let read_on = async {
        let mut scrap = [0; 4096];
        while reader.read(&mut scrap).await.is_ok_and(|len| len > 0) {}
    };
    // Late or not, it is closed.
    let _ = timeout(LINGER, read_on).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells() {
        for (bytes, what) in [
            (&b"\x9b\x01"[..], First::Member),
            (b"\x9c", First::Member),
            (b"\x9d", First::Packets),
            (b"\x16\x03\x01", First::Tls),
            (b"GET / HTTP/1.1", First::Http),
            (b"PRI * HTTP/2.0", First::Http),
            (b"OPTIONS *", First::Http),
            (b"CONNECT a:1", First::Http),
            (b"\x00", First::Unknown),
            (b"get", First::Unknown),
        ] {
            assert_eq!(First::of(bytes[0]), what, "{bytes:?}");
        }
    }

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let answer = answer();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 400 ")
                && head.contains(&format!("Content-Length: {}\r\n", body.len()))
        );
        assert!(body.ends_with('\n') && !body.trim_end().contains('\n'));
    }
}
