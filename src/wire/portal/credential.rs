//! Custom credentials: tokens that are imported (portal-api, B2).

use super::fields::{Fields, Flag, Members, Moment, Ref};
use crate::domain::token::{TOKEN_LEN_MAX, TOKEN_LEN_MIN, Token};

/// Tokens shorter than this draw a warning: they can be guessed.
pub const WEAK_TOKEN_LEN: usize = 16;

/// What a body is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To make an object.
    Create,
    /// To change one; the body lies over its members.
    Change,
}

/// A custom credential as a body describes it.
#[derive(Debug)]
pub struct Credential {
    /// Its name, unique within the app.
    pub alias: String,
    /// What it is made of; only when it is made.
    pub secret: Secret,
    /// Limits.
    pub plan: Option<Ref>,
    /// Access rights.
    pub products: Vec<Ref>,
    /// When it ends.
    pub expires: Moment,
    /// Whether it is switched on.
    pub active: bool,
}

/// What a new credential is made of.
#[derive(Debug)]
pub enum Secret {
    /// It has what it needs already, or its body is at fault.
    None,
    /// A token that exists elsewhere.
    Import(Token),
    /// A token to be generated.
    Generate,
    /// A key and a secret that are kept for display and open nothing here.
    Pair {
        /// The key.
        key: Token,
        /// The secret.
        secret: Token,
    },
}

/// Where a credential comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Managed,
    Pair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenType {
    Custom,
    Standard,
}

impl Credential {
    /// Reads a body or the members of a record, and checks what can be checked without the store.
    ///
    /// The portal's own template carries every field at once, so that fields which do not matter
    /// for the type in question are read by nobody. `AuthenticationMethod` is free text in the
    /// portal's API; whatever names no OAuth counts as the token method.
    pub fn read(fields: &mut Fields<'_>, purpose: Purpose) -> Self {
        let alias = fields.required_line("Alias");
        let key = fields.secret("KeyID");
        let pair = (fields.secret("CredentialKey"), fields.secret("CredentialSecret"));
        for member in ["ProviderID", "ClientTypeID"] {
            fields.discard(member);
        }
        let sources = [
            ("CREDENTIAL_TYPE_TYK_MANAGED", Source::Managed),
            ("CREDENTIAL_TYPE_CUSTOM", Source::Pair),
        ];
        if !fields.has("Type") {
            fields.fault("Type", "is required");
        }
        let source = fields.choice("Type", &sources);
        let method = fields.line("AuthenticationMethod");
        if source == Some(Source::Managed) && is_oauth(&method) {
            fields.fault("AuthenticationMethod", "must be a token method: OAuth is not supported");
        }
        let secret = match source {
            Some(Source::Managed) => token(fields, key, purpose),
            Some(Source::Pair) => {
                for member in ["PlanID", "ProductIDs", "AuthTokenType"] {
                    fields.discard(member);
                }
                self::pair(fields, pair, purpose)
            }
            None => Secret::None,
        };
        let (plan, products) = match source {
            Some(Source::Pair) => (None, Vec::new()),
            Some(Source::Managed) | None => rights(fields),
        };
        let expires = fields.moment("Expires");
        let active = fields.flag("Active", Flag::On);
        fields.object("MetaData");
        Self { alias, secret, plan, products, expires, active }
    }

    /// Keeps the exact expiry when a body brings it back as it was shown, in minutes.
    pub fn normalise(body: &mut Members, shown_expiry: &str) {
        if body.get("Expires").and_then(|v| v.as_str()) == Some(shown_expiry) {
            body.remove("Expires");
        }
    }
}

/// Exactly one plan, and at least one product.
fn rights(fields: &mut Fields<'_>) -> (Option<Ref>, Vec<Ref>) {
    let plan = fields.reference("PlanID");
    let had_products = fields.has("ProductIDs");
    let products = fields.references("ProductIDs");
    if plan.is_none() && !fields.faulted("PlanID") {
        fields.fault("PlanID", "is required");
    }
    if products.is_empty() && !(had_products && fields.faulted("ProductIDs")) {
        fields.fault("ProductIDs", "must name at least one product");
    }
    (plan, products)
}

fn token(fields: &mut Fields<'_>, key: Option<Token>, purpose: Purpose) -> Secret {
    let types = [
        ("AUTH_TOKEN_CUSTOM", TokenType::Custom),
        ("AUTH_TOKEN_TYPE_CUSTOM", TokenType::Custom),
        ("AUTH_TOKEN_STANDARD", TokenType::Standard),
        ("AUTH_TOKEN_TYPE_STANDARD", TokenType::Standard),
    ];
    let had_type = fields.has("AuthTokenType");
    let token_type = fields.choice("AuthTokenType", &types);
    match (token_type, key) {
        _ if purpose == Purpose::Change => Secret::None,
        (None, _) if had_type => Secret::None,
        (None, _) => {
            fields.fault("AuthTokenType", "is required");
            Secret::None
        }
        (Some(TokenType::Standard), None) => Secret::Generate,
        (Some(TokenType::Standard), Some(_)) => {
            fields.fault("KeyID", "must be absent when AuthTokenType is AUTH_TOKEN_STANDARD");
            Secret::None
        }
        (Some(TokenType::Custom), Some(key)) => {
            check_key(fields, &key);
            Secret::Import(key)
        }
        (Some(TokenType::Custom), None) => {
            if !fields.faulted("KeyID") {
                fields.fault("KeyID", "is required when AuthTokenType is AUTH_TOKEN_CUSTOM");
            }
            Secret::None
        }
    }
}

fn pair(fields: &mut Fields<'_>, pair: (Option<Token>, Option<Token>), purpose: Purpose) -> Secret {
    if purpose == Purpose::Change {
        return Secret::None;
    }
    let (key, secret) = pair;
    for (name, part) in [("CredentialKey", &key), ("CredentialSecret", &secret)] {
        let len = part.as_ref().map_or(0, |part| part.reveal().len());
        if TOKEN_LEN_MAX < len {
            fields.fault(name, format_args!("must be at most {TOKEN_LEN_MAX} bytes long"));
        }
    }
    let Some(key) = key else {
        if !fields.faulted("CredentialKey") {
            fields.fault("CredentialKey", "is required when Type is CREDENTIAL_TYPE_CUSTOM");
        }
        return Secret::None;
    };
    Secret::Pair { key, secret: secret.unwrap_or_else(|| Token::new(String::new())) }
}

/// How a token is to be replaced.
#[derive(Debug)]
pub struct Rotation {
    /// The new token; one is generated when there is none.
    pub key: Option<Token>,
    /// For how many seconds the old token goes on working beside the new one.
    pub grace_s: u64,
}

impl Rotation {
    /// Reads a body.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let key = fields.secret("KeyID");
        if let Some(key) = &key {
            check_key(fields, key);
        }
        let grace_s = u64::try_from(fields.whole("GracePeriod")).ok();
        let grace_s = grace_s.filter(|seconds| *seconds <= GRACE_S_MAX);
        if grace_s.is_none() {
            fields.fault("GracePeriod", format_args!("must be 0 to {GRACE_S_MAX} seconds"));
        }
        Self { key, grace_s: grace_s.unwrap_or(0) }
    }
}

/// The longest time that two tokens of a credential work side by side: who has not changed over
/// within a quarter will not do so in time.
const GRACE_S_MAX: u64 = 90 * 86_400;

/// The rules of an imported token. No fault shows any of it.
fn check_key(fields: &mut Fields<'_>, key: &Token) {
    let text = key.reveal();
    if !(TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&text.len()) {
        let bounds = format_args!("must be {TOKEN_LEN_MIN} to {TOKEN_LEN_MAX} characters long");
        fields.fault("KeyID", bounds);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        fields.fault("KeyID", "must be visible ASCII characters without spaces");
    }
    if text.starts_with(',') || text.ends_with(',') {
        fields.fault("KeyID", "must not begin or end with a comma");
    }
}

pub(crate) fn is_oauth(method: &str) -> bool {
    let letters = method.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    matches!(plain.as_str(), "oauth" | "oauth2" | "oauth20" | "dcr")
}

/// Whether a text holds a token of which only the mask and a test for the whole are left.
///
/// The mask tells how long the token is at least and how it begins and ends, so that only few
/// parts of the text have to be tried; of a text that offers too many, the answer is yes.
#[must_use]
pub fn mentions(text: &str, mask: &str, is_token: impl Fn(&str) -> bool) -> bool {
    let (begin, end) = mask.split_once('…').unwrap_or_default();
    let lengths = match begin.len() {
        0 => TOKEN_LEN_MIN..=WEAK_TOKEN_LEN - 1,
        1..4 => WEAK_TOKEN_LEN..=LONG_TOKEN_LEN - 1,
        4.. => LONG_TOKEN_LEN..=TOKEN_LEN_MAX,
    };
    let begins = text.match_indices(begin).map(|(at, _)| at);
    let mut tries = 0;
    for from in begins {
        let rest = text.get(from..).unwrap_or_default();
        for (at, _) in rest.match_indices(end) {
            let until = at + end.len();
            if !lengths.contains(&until) {
                continue;
            }
            tries += 1;
            if TRIES_MAX < tries || rest.get(..until).is_some_and(&is_token) {
                return true;
            }
        }
    }
    false
}

/// The most parts of a text that are tried: about a tenth of a second.
const TRIES_MAX: usize = 100_000;

/// Tokens of this length and more show four characters at both ends.
const LONG_TOKEN_LEN: usize = 24;

/// What is shown of a token: four characters at both ends of a long one, less of a shorter one.
#[must_use]
pub fn mask(token: &Token) -> String {
    let text = token.reveal();
    let shown = match text.len() {
        LONG_TOKEN_LEN.. => 4,
        WEAK_TOKEN_LEN..LONG_TOKEN_LEN => 2,
        _ => 0,
    };
    let ends = text.get(..shown).zip(text.get(text.len().saturating_sub(shown)..));
    ends.map_or_else(|| "…".to_owned(), |(first, last)| format!("{first}…{last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_shows_little() {
        let check = |text: &str, expect| assert_eq!(mask(&Token::new(text.into())), expect);
        check("LEG-00fa-91c2-77aa-0001-abcd", "LEG-…abcd");
        check("LEG-00fa-91c2-77aa", "LE…aa");
        check("short", "…");
        check("xééééééééééééé", "…"); // Never kept, and no reason to panic.
    }

    #[test]
    fn a_token_is_found_in_a_text_by_its_mask() {
        for key in ["abc", "LEG-00fa-91c2-77aa", "LEG-00fa-91c2-77aa-0001-abcd"] {
            let mask = mask(&Token::new(key.into()));
            let check = |text: &str| mentions(text, &mask, |part| part == key);
            for text in [key.to_owned(), format!("é {key}"), format!("x{key}y")] {
                assert!(check(&text), "{text}");
            }
            let less = key.get(..key.len() - 1).unwrap_or_default();
            assert!(!check(less) && !check("") && !check(&mask), "{key}");
        }
    }

    #[test]
    fn only_oauth_is_not_a_token_method() {
        for method in ["oAuth2.0", "oauth2", "OAuth"] {
            assert!(is_oauth(method), "{method}");
        }
        for method in ["authToken", "auth_token", "key", "Auth Token", "", "<string>"] {
            assert!(!is_oauth(method), "{method}");
        }
    }
}
