//! The PROXY protocol, versions 1 and 2: whom a proxy in front speaks for
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;
/// The longest header of version 2 that is read, without its first 16 bytes: addresses are 36 at
/// most, the rest is what a proxy tells of itself.
const REST_MAX: usize = 4_096;

/// Reads the header, and nothing beyond it. `None` is a connection of the proxy's own.
///
/// # Errors
/// When there is none, or one that cannot be read.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    if &first == SIGNATURE {
        return version_2(stream).await;
    }
    let mut line = first.to_vec();
    while !line.ends_with(b"\n") {
        if LINE_MAX <= line.len() || !line.starts_with(b"PROXY ") {
            return Err(broken());
        }
        // As far as the line goes: what follows belongs to somebody else.
        let mut ahead = [0; LINE_MAX];
        let there = stream.peek(&mut ahead).await?;
        let there = ahead.get(..there).unwrap_or_default();
        let end = there.iter().position(|b| *b == b'\n').map(|at| at.saturating_add(1));
        let take = end.unwrap_or(there.len()).min(LINE_MAX.saturating_sub(line.len()));
        if take == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from = line.len();
        line.resize(from.saturating_add(take), 0);
        stream.read_exact(line.get_mut(from..).unwrap_or_default()).await?;
    }
    version_1(&line)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY protocol header")
}

fn version_1(line: &[u8]) -> io::Result<Option<IpAddr>> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.ok_or_else(broken)?.split(' ');
    let mut word = || words.next().ok_or_else(broken);
    let (_proxy, family) = (word()?, word()?);
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let (source, target) = (word()?, word()?);
    let ports = [word()?, word()?];
    let port =
        |text: &&str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let v4 = |text: &str| text.parse::<Ipv4Addr>().map(IpAddr::V4).ok();
    let v6 = |text: &str| text.parse::<Ipv6Addr>().map(IpAddr::V6).ok();
    let addresses = match family {
        "TCP4" => v4(source).zip(v4(target)),
        "TCP6" => v6(source).zip(v6(target)),
        _ => None,
    };
    match addresses {
        Some((source, _)) if ports.iter().all(port) && words.next().is_none() => Ok(Some(source)),
        _ => Err(broken()),
    }
}

async fn version_2(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [command, family, a, b] = head;
    let length = usize::from(u16::from_be_bytes([a, b]));
    if REST_MAX < length {
        return Err(broken());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (command, family) {
        // LOCAL: the proxy speaks for itself.
        (0x20, _) => Ok(None),
        // PROXY, over TCP or UDP of IPv4.
        (0x21, 0x11 | 0x12) if 12 <= length => {
            let source = rest.first_chunk::<4>().ok_or_else(broken)?;
            Ok(Some(IpAddr::from(*source)))
        }
        (0x21, 0x21 | 0x22) if 36 <= length => {
            let source = rest.first_chunk::<16>().ok_or_else(broken)?;
            Ok(Some(IpAddr::from(*source)))
        }
        // A family that has no addresses for us: whom it speaks for is not told.
        (0x21, 0x00 | 0x31 | 0x32) => Ok(None),
        _ => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is read from some bytes, and what is left of them.
    async fn check(bytes: &[u8], piece: usize) -> (Result<Option<IpAddr>, io::ErrorKind>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                // The other side may have had enough.
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        });
        let read = read(&mut server).await.map_err(|error| error.kind());
        writing.await.unwrap();
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest).await;
        (read, rest)
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    #[tokio::test]
    async fn headers_of_both_versions_are_read_and_not_a_byte_more() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        let with_more = [four.as_slice(), &[4, 0, 3, 1, 2, 3]].concat();
        let seven = Some("192.0.2.7".parse().unwrap());
        let seven_6 = Some("2001:db8::7".parse().unwrap());
        for (head, address) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\r\n".to_vec(), seven),
            (b"PROXY TCP6 2001:db8::7 ::1 65535 443\r\n".to_vec(), seven_6),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ff:: ff:: 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &four), seven),
            (v2(0x21, 0x11, &with_more), seven),
            (v2(0x21, 0x21, &six), seven_6),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x21, 0x00, &[]), None),
        ] {
            for piece in [1, 7, 1_000] {
                let bytes = [head.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat();
                let (read, rest) = check(&bytes, piece).await;
                assert_eq!((read, rest), (Ok(address), b"GET / HTTP/1.1\r\n\r\n".to_vec()));
            }
        }
    }

    #[tokio::test]
    async fn everything_else_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 +2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 5_000]),
        ] {
            let (read, _) = check(&bytes, 1_000).await;
            assert_eq!(read, Err(io::ErrorKind::InvalidData), "{:?}", bytes.escape_ascii());
        }
        for bytes in
            [b"PROXY".to_vec(), b"PROXY TCP4 192".to_vec(), v2(0x21, 0x11, &[])[..14].into()]
        {
            let (read, _) = check(&bytes, 1_000).await;
            assert_eq!(read, Err(io::ErrorKind::UnexpectedEof), "{:?}", bytes.escape_ascii());
        }
    }
}
