//! A file of credentials with seeded faults, and what an import has to say about it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A file, and what is known of it.
pub struct ImportFile {
    /// NDJSON.
    pub text: String,
    /// Lines with faults, and their codes.
    pub faults: Vec<(u64, &'static str)>,
    /// Every token, also of lines with faults.
    pub tokens: Vec<String>,
}

impl ImportFile {
    /// `lines` lines for `app`, every second token as its SHA-256, every hundredth line wrong.
    pub fn new(lines: u64, app: u64, plan: u64, product: u64) -> Self {
        let mut file = Self { text: String::new(), faults: Vec::new(), tokens: Vec::new() };
        for number in 1..=lines {
            let token =
                format!("LEG-{number:06}-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut line = json!({
                "Line": format!("old-{number}"), "AppID": app, "Alias": format!("key {number}"),
                "PlanID": plan, "ProductIDs": [product], "MetaData": { "tier": "gold" }
            });
            match number % 2 {
                0 => line["KeyID"] = json!(token),
                _ => {
                    line["KeyHash"] = json!({ "Algorithm": "sha256", "Encoding": "hex",
                    "Value": sha256(&token) })
                }
            }
            let broken = number % 100 == 50;
            let text = if broken { file.spoil(number, line) } else { line.to_string() };
            writeln!(file.text, "{text}").unwrap();
            file.tokens.push(token);
        }
        file
    }

    fn spoil(&mut self, number: u64, mut line: Value) -> String {
        let code = match number / 100 % 10 {
            0 => {
                self.faults.push((number, "bad_json"));
                return line.to_string().replace('}', "");
            }
            1 => ("unknown_plan", "PlanID", json!(9_999)),
            2 => ("unknown_product", "ProductIDs", json!(["nobody"])),
            3 => ("unknown_app", "AppID", json!(9_999)),
            4 => ("missing_field", "Alias", Value::Null),
            5 => ("key_too_short", "KeyID", json!("ab")),
            6 => ("key_bad_chars", "KeyID", json!("LEG 00fa")),
            7 => ("expires_in_past", "Expires", json!("2001-01-01 00:00")),
            8 => ("alias_in_use", "Alias", json!("key 1")),
            _ => {
                let first = self.tokens.last().unwrap().clone();
                ("duplicate_in_file", "KeyID", json!(first))
            }
        };
        if code.1 == "KeyID" {
            line["KeyHash"] = Value::Null;
        }
        line[code.1] = code.2;
        self.faults.push((number, code.0));
        line.to_string()
    }

    /// Lines without faults.
    pub fn good(&self) -> u64 {
        u64::try_from(self.tokens.len() - self.faults.len()).unwrap()
    }
}

/// In hexadecimal digits.
pub fn sha256(token: &str) -> String {
    Sha256::digest(token).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
