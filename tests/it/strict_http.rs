//! HTTP/1.1 as RFC 9112 has it and not a byte otherwise: no library, no repair. What the gateway
//! sends is read with it, so that whatever another parser might take for something else is a fault.

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strict {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Strict {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The first request and its length in bytes; `None` while there is more to come.
///
/// # Errors
/// What is not as it has to be.
pub fn next(bytes: &[u8]) -> Result<Option<(Strict, usize)>, String> {
    let fault = |what: &str| Err(format!("{what} in {}", bytes.escape_ascii()));
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let Ok(lines) = lines(&bytes[..end]) else { return fault("an odd line") };
    let (first, fields) = lines.split_first().ok_or("nothing")?;
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return fault("an odd request line") };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !is_token(method) || !target.starts_with('/') || !plain(target) {
        return fault("an odd method or target");
    }
    let Some(headers) = split(fields) else { return fault("an odd header") };
    let mut request = Strict {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        ..Strict::default()
    };
    let all = |name: &str| {
        let found = request.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        found.collect::<Vec<_>>()
    };
    let from = end + 4;
    if all("host").len() != 1 {
        return fault("not one host");
    }
    let after = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => from,
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let Ok(length) = length.parse::<usize>() else { return fault("an endless length") };
            let Some(body) = bytes.get(from..from + length) else { return Ok(None) };
            request.body = body.to_vec();
            from + length
        }
        ([], ["chunked"]) => match chunks(&bytes[from..], &mut request) {
            Ok(Some(length)) => from + length,
            Ok(None) => return Ok(None),
            Err(what) => return fault(what),
        },
        _ => return fault("an odd framing"),
    };
    Ok(Some((request, after)))
}

fn chunks(bytes: &[u8], request: &mut Strict) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + end]).unwrap_or("?");
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) || 8 < size.len() {
            return Err("an odd chunk size");
        }
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk that does not end");
        }
        request.body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Some(at + 2));
    }
    let Some(end) = find(&bytes[at..], b"\r\n\r\n") else { return Ok(None) };
    let lines = lines(&bytes[at..at + end]).map_err(|()| "an odd line of trailers")?;
    request.trailers = split(&lines).ok_or("an odd trailer")?;
    Ok(Some(at + end + 4))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// Lines without any control in them but tabs. Bytes beyond ASCII are some letter.
fn lines(bytes: &[u8]) -> Result<Vec<String>, ()> {
    let text: String = bytes.iter().map(|b| char::from(*b)).collect();
    let lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    let odd = |c: char| (c.is_ascii_control() && c != '\t') || c == '\u{7f}';
    if lines.iter().any(|line| line.contains(odd)) { Err(()) } else { Ok(lines) }
}

fn split(lines: &[String]) -> Option<Vec<(String, String)>> {
    let field = |line: &String| {
        let (name, value) = line.split_once(": ")?;
        let trimmed = value.trim_matches([' ', '\t']) == value;
        (is_token(name) && trimmed).then(|| (name.to_ascii_lowercase(), value.to_owned()))
    };
    lines.iter().map(field).collect()
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}
