//! Where a token is read from, and how every place it is read from is cleaned afterwards.
//!
//! The order is fixed: `Authorization`, `X-API-Key`, then the API's own header, query parameter
//! and cookie. The first that has a token counts; another token further down is not looked at, and
//! stripped all the same. A place that holds two tokens is refused: which one counts would
//! be anybody's guess.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::api::TokenSources;
use crate::domain::denial::Malformed;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Where an API reads tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    pub(super) sources: &'a TokenSources,
    /// The API's own header, as a name.
    pub(super) header: Option<&'a HeaderName>,
}

impl Places<'_> {
    /// The token of a request, if it has one.
    ///
    /// # Errors
    /// When one place has several.
    pub(super) fn read<'r>(
        &self,
        headers: &'r HeaderMap,
        query: Option<&'r str>,
    ) -> Result<Option<Cow<'r, [u8]>>, Malformed> {
        // All places are looked at, so that a second token in one of them is always seen.
        let authorization = match self.sources.authorization {
            true => one(headers, &AUTHORIZATION)?.and_then(bearer),
            false => None,
        };
        let key = match self.sources.x_api_key {
            true => one(headers, &X_API_KEY)?.and_then(filled),
            false => None,
        };
        let header = match self.header {
            Some(name) if *name == AUTHORIZATION => one(headers, name)?.and_then(bearer),
            Some(name) => one(headers, name)?.and_then(filled),
            None => None,
        };
        let parameter = match (&self.sources.query, query) {
            (Some(name), Some(query)) => parameter(query, name)?,
            _ => None,
        };
        let cookie = match &self.sources.cookie {
            Some(name) => cookie(headers, name)?,
            None => None,
        };
        let plain = authorization.or(key).or(header).map(Cow::Borrowed);
        Ok(plain.or(parameter).or(cookie.map(Cow::Borrowed)))
    }

    /// Takes off every header and cookie that tokens are read from.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.sources.authorization {
            headers.remove(AUTHORIZATION);
        }
        if self.sources.x_api_key {
            headers.remove(X_API_KEY);
        }
        if let Some(name) = self.header {
            headers.remove(name);
        }
        if let Some(name) = &self.sources.cookie {
            strip_cookie(headers, name);
        }
    }

    /// The query without the parameter that tokens are read from; the rest byte for byte.
    pub(super) fn strip_query<'q>(&self, query: &'q str) -> Cow<'q, str> {
        let Some(name) = &self.sources.query else { return Cow::Borrowed(query) };
        if !query.split('&').any(|pair| is_named(pair, name)) {
            return Cow::Borrowed(query);
        }
        let kept: Vec<&str> = query.split('&').filter(|pair| !is_named(pair, name)).collect();
        Cow::Owned(kept.join("&"))
    }
}

fn one<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r [u8]>, Malformed> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Malformed::Credentials),
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
    }
}

fn filled(value: &[u8]) -> Option<&[u8]> {
    Some(value.trim_ascii()).filter(|value| !value.is_empty())
}

/// `Bearer` and a token, or a token alone. What has another scheme before it is no token.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let token = match value.iter().position(blank) {
        None if value.eq_ignore_ascii_case(b"bearer") => return None,
        None => value,
        Some(at) => {
            let (scheme, rest) = value.split_at_checked(at)?;
            if !scheme.eq_ignore_ascii_case(b"bearer") {
                return None;
            }
            rest.trim_ascii()
        }
    };
    (!token.is_empty() && !token.iter().any(blank)).then_some(token)
}

fn parameter<'r>(query: &'r str, name: &str) -> Result<Option<Cow<'r, [u8]>>, Malformed> {
    let mut found = query.split('&').filter(|pair| is_named(pair, name));
    let Some(pair) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(Malformed::Credentials);
    }
    let value = pair.split_once('=').map_or("", |(_, value)| value);
    Ok(Some(decoded(value)).filter(|value| !value.is_empty()))
}

/// Whether a pair's name is this one once it is decoded, as the upstream would.
fn is_named(pair: &str, name: &str) -> bool {
    let written = pair.split_once('=').map_or(pair, |(written, _)| written);
    written == name || (written.contains('%') && decoded(written).as_ref() == name.as_bytes())
}

/// Percent-escapes resolved; what is no escape stays. A `+` stays too: tokens have no spaces.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let hex = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        let escape = match rest {
            [b'%', high, low, after @ ..] => hex(*high).zip(hex(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        match escape {
            Some(((high, low), after)) => {
                out.push(high << 4 | low);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(out)
}

fn cookie<'r>(headers: &'r HeaderMap, name: &str) -> Result<Option<&'r [u8]>, Malformed> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b';'))
        .filter_map(|pair| cookie_value(pair, name));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Malformed::Credentials),
        (value, None) => Ok(value.and_then(filled)),
    }
}

fn cookie_value<'r>(pair: &'r [u8], name: &str) -> Option<&'r [u8]> {
    let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
    let value = value.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

fn strip_cookie(headers: &mut HeaderMap, name: &str) {
    let mine = |value: &HeaderValue| {
        value.as_bytes().split(|b| *b == b';').any(|pair| cookie_value(pair, name).is_some())
    };
    if !headers.get_all(COOKIE).iter().any(mine) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let kept: Vec<&[u8]> = line
            .as_bytes()
            .split(|b| *b == b';')
            .filter(|pair| cookie_value(pair, name).is_none())
            .map(<[u8]>::trim_ascii)
            .filter(|pair| !pair.is_empty())
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(&kept.join(b"; ".as_slice()))
            && !kept.is_empty()
        {
            headers.append(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_is_bearer_or_raw() {
        let check = |value: &str, expect: Option<&str>| {
            assert_eq!(bearer(value.as_bytes()), expect.map(str::as_bytes), "{value:?}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer   abc ", Some("abc"));
        check("BEARER\tabc", Some("abc"));
        check("abc", Some("abc"));
        check("Basic abc", None);
        check("Bearer", None);
        check("Bearer a b", None);
        check("abc def", None);
        check("", None);
    }

    #[test]
    fn a_parameter_is_read_decoded_and_removed() {
        let sources = TokenSources {
            authorization: false,
            x_api_key: false,
            header: None,
            query: Some("key".into()),
            cookie: None,
        };
        let places = Places { sources: &sources, header: None };
        let none = HeaderMap::new();
        let check = |query: &str, expect: Result<Option<&str>, Malformed>, rest: &str| {
            let read = places.read(&none, Some(query));
            let read = read.map(|token| token.map(|t| String::from_utf8(t.into_owned()).unwrap()));
            assert_eq!(read, expect.map(|token| token.map(str::to_owned)), "{query}");
            assert_eq!(places.strip_query(query), rest, "{query}");
        };
        check("a=1&key=t%2Bk&b=%2f", Ok(Some("t+k")), "a=1&b=%2f");
        check("k%65y=tok", Ok(Some("tok")), "");
        check("a=1&&b", Ok(None), "a=1&&b");
        check("key=", Ok(None), "");
        check("key=1&key=2", Err(Malformed::Credentials), "");
        check("monkey=1", Ok(None), "monkey=1");
        check("key=%zz%4", Ok(Some("%zz%4")), "");
    }

    #[test]
    fn a_cookie_is_read_and_the_others_stay() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; tok=\"abc\"; b=2"));
        assert_eq!(cookie(&headers, "tok"), Ok(Some(b"abc".as_slice())));
        strip_cookie(&mut headers, "tok");
        assert_eq!(headers.get(COOKIE).unwrap(), "a=1; b=2");
        headers.append(COOKIE, HeaderValue::from_static("tok=x"));
        strip_cookie(&mut headers, "tok");
        assert_eq!(headers.get_all(COOKIE).iter().count(), 1);
        headers.append(COOKIE, HeaderValue::from_static("tok=x;tok=y"));
        assert_eq!(cookie(&headers, "tok"), Err(Malformed::Credentials));
    }
}
