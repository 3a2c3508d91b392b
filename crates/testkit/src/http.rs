//! An HTTP/1.1 client just large enough for tests: one request per connection, whole answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Error;

/// A request without a complete answer fails after this.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer read.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, such as 200.
    pub status: u16,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body, decoded if it came in chunks.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Gets `path` (with its query) from a server.
///
/// # Errors
///
/// [`Error::Http`] without a complete answer within [`TIMEOUT`]; any status is an answer.
pub async fn get(addr: SocketAddr, path: &str) -> Result<Answer, Error> {
    request(addr, "GET", path, &[], b"").await
}

/// Posts `body` to `path` with headers.
///
/// # Errors
///
/// As [`get`].
pub async fn post(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, Error> {
    request(addr, "POST", path, headers, body).await
}

/// Sends any request. Dropping the future closes the connection.
///
/// # Errors
///
/// As [`get`].
pub async fn request(
    addr: SocketAddr,
    method: &'static str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, Error> {
    let fail = |problem: String| Error::Http { method, url: format!("http://{addr}{path}"), problem };
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
        head += &format!("content-length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        // Servers that keep the connection although they were asked not to say how long the answer is.
        let (mut answer, mut whole) = (Vec::new(), None);
        let mut stream = stream.take(MAX_ANSWER_BYTES);
        while stream.read_buf(&mut answer).await? > 0 {
            whole = whole.or_else(|| announced(&answer));
            if whole.is_some_and(|whole| answer.len() >= whole) {
                break;
            }
        }
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match timeout(TIMEOUT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(cause)) => return Err(fail(cause.to_string())),
        Err(_) => return Err(fail(format!("no answer within {TIMEOUT:?}"))),
    };
    parse(&answer).ok_or_else(|| fail("the answer is incomplete or no HTTP/1.1".to_owned()))
}

/// The length of an answer, head included, once its head is there and tells.
fn announced(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    Some(end + 4 + length.trim().parse::<usize>().ok()?)
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let mut lines = std::str::from_utf8(answer.get(..end)?).ok()?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<Option<_>>()?;
    let answer = Answer { status, headers, body: answer.get(end + 4..)?.to_owned() };
    let body = match (answer.header("transfer-encoding"), answer.header("content-length")) {
        (Some("chunked"), _) => unchunk(&answer.body)?,
        (_, Some(length)) => {
            let length = length.parse::<usize>().ok()?;
            answer.body.get(..length)?.to_owned()
        }
        _ => answer.body.clone(),
    };
    Some(Answer { body, ..answer })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|bytes| bytes == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = rest.get(end + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// Writes a text so that it can stand in a query.
pub fn escape(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_all_three_framings() {
        let plain = parse(b"HTTP/1.1 204 No Content\r\nX-Name: a b\r\n\r\n").unwrap();
        assert_eq!((plain.status, plain.header("x-name"), plain.text()), (204, Some("a b"), String::new()));
        let sized = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        assert_eq!(sized.text(), "hello");
        let chunked = parse(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1;x=y\r\no\r\n0\r\n\r\n",
        )
        .unwrap();
        assert_eq!(chunked.text(), "hello");
    }

    #[test]
    fn an_answer_that_was_cut_is_no_answer() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Le"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escape("count({__name__=~\".+\"})"), "count%28%7B__name__%3D~%22.%2B%22%7D%29");
    }
}
