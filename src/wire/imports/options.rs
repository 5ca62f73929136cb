//! What the query of an import says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest an answer is held back for the end of the import.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// A header row, then one row a credential.
    Csv,
}

/// What becomes of a token that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its credential becomes what the line says, if it is of the same app.
    #[default]
    Upsert,
    /// It is a fault, unless the credential is what the line says.
    Create,
    /// As upsert; and the file is the whole list of one app: its other tokens are deleted.
    #[serde(rename = "replace_app")]
    ReplaceApp,
}

/// What becomes of the other lines when one has a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// They are applied.
    #[default]
    Continue,
    /// None is applied: all are checked before the first is.
    Abort,
}

/// One import's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How lines are written.
    pub format: Format,
    /// What becomes of tokens that are there.
    pub mode: Mode,
    /// What becomes of the rest when a line has a fault.
    pub on_error: OnError,
    /// Checks and changes nothing.
    pub dry_run: bool,
    /// How long the answer may wait for the end.
    pub wait: Duration,
    /// The app of lines that name none.
    pub app: Option<String>,
    /// The plan of lines that name none.
    pub plan: Option<String>,
    /// The products of lines that name none.
    pub products: Vec<String>,
    /// Usage plans of Amazon's API Gateway: what plan and products stand for each.
    pub usage_plans: BTreeMap<String, UsagePlan>,
}

/// What stands for a usage plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsagePlan {
    /// A plan.
    pub plan: Option<String>,
    /// Products.
    pub products: Vec<String>,
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsFault {
    /// Neither query nor content type says how lines are written.
    NoFormat,
    /// These are wrong.
    Faults(Vec<String>),
}

impl Options {
    /// Reads the pairs of a query. Without `format` the content type says how lines are written.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn parse(
        pairs: &[(String, String)],
        content_type: Option<&str>,
    ) -> Result<Self, OptionsFault> {
        let mut faults = Vec::new();
        let mut options = Self {
            format: Format::Ndjson,
            mode: Mode::default(),
            on_error: OnError::default(),
            dry_run: false,
            wait: Duration::ZERO,
            app: None,
            plan: None,
            products: Vec::new(),
            usage_plans: BTreeMap::new(),
        };
        let mut format = None;
        for (name, value) in pairs {
            let choices = match (name.as_str(), value.as_str()) {
                ("format", "ndjson") => set(&mut format, Some(Format::Ndjson)),
                ("format", "csv") => set(&mut format, Some(Format::Csv)),
                ("format", _) => Some("ndjson or csv"),
                ("mode", "upsert") => set(&mut options.mode, Mode::Upsert),
                ("mode", "create") => set(&mut options.mode, Mode::Create),
                ("mode", "replace_app") => set(&mut options.mode, Mode::ReplaceApp),
                ("mode", _) => Some("upsert, create or replace_app"),
                ("on_error", "continue") => set(&mut options.on_error, OnError::Continue),
                ("on_error", "abort") => set(&mut options.on_error, OnError::Abort),
                ("on_error", _) => Some("continue or abort"),
                ("dry_run", "true" | "1") => set(&mut options.dry_run, true),
                ("dry_run", "false" | "0") => set(&mut options.dry_run, false),
                ("dry_run", _) => Some("true or false"),
                // Until it ends; then its answer waits for the gateways, as that of any write.
                ("wait", "cluster") => set(&mut options.wait, WAIT_MAX),
                ("wait", span) => match seconds(span) {
                    Some(wait) => set(&mut options.wait, wait.min(WAIT_MAX)),
                    None => Some("a span such as 10s, or cluster"),
                },
                ("app", app) => set(&mut options.app, Some(app.to_owned())),
                ("plan", plan) => set(&mut options.plan, Some(plan.to_owned())),
                ("products", all) => set(&mut options.products, names(all)),
                (other, value) => options.map(other, value),
            };
            if let Some(choices) = choices {
                faults.push(format!("{name} must be {choices}"));
            }
        }
        if options.mode == Mode::ReplaceApp && options.app.is_none() {
            faults.push("app is required where mode is replace_app".to_owned());
        }
        if !faults.is_empty() {
            return Err(OptionsFault::Faults(faults));
        }
        options.format = format.or_else(|| of_type(content_type?)).ok_or(OptionsFault::NoFormat)?;
        Ok(options)
    }

    /// `map.plan.ID` and `map.products.ID`. Parameters that mean nothing here are passed over.
    fn map(&mut self, name: &str, value: &str) -> Option<&'static str> {
        if let Some(id) = name.strip_prefix("map.plan.") {
            self.usage_plans.entry(id.to_owned()).or_default().plan = Some(value.to_owned());
        } else if let Some(id) = name.strip_prefix("map.products.") {
            self.usage_plans.entry(id.to_owned()).or_default().products = names(value);
        }
        None
    }
}

fn set<T>(place: &mut T, value: T) -> Option<&'static str> {
    *place = value;
    None
}

fn of_type(content_type: &str) -> Option<Format> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Format::Ndjson),
        "text/csv" => Some(Format::Csv),
        _ => None,
    }
}

fn seconds(span: &str) -> Option<Duration> {
    span.strip_suffix('s').unwrap_or(span).parse().ok().map(Duration::from_secs)
}

/// Names in a list with commas or semicolons.
pub(super) fn names(list: &str) -> Vec<String> {
    let names = list.split([',', ';']).map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str, kind: Option<&str>) -> Result<Options, OptionsFault> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<_> = pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        Options::parse(&pairs, kind)
    }

    #[test]
    fn the_query_says_what_is_wanted() {
        let options = parse(
            "format=csv&mode=create&on_error=abort&dry_run=true&wait=10s&app=41&\
             map.plan.c7y23b=3&map.products.c7y23b=2,5",
            None,
        );
        let options = options.unwrap();
        assert_eq!((options.format, options.mode), (Format::Csv, Mode::Create));
        assert_eq!((options.on_error, options.dry_run), (OnError::Abort, true));
        assert_eq!((options.wait.as_secs(), options.app.as_deref()), (10, Some("41")));
        let plan = &options.usage_plans["c7y23b"];
        assert_eq!(
            (plan.plan.as_deref(), plan.products.as_slice().join("+")),
            (Some("3"), "2+5".into())
        );
    }

    #[test]
    fn who_waits_for_the_cluster_waits_for_the_end() {
        let options = parse("format=csv&wait=cluster&timeout=5s", None).unwrap();
        assert_eq!(options.wait, WAIT_MAX);
    }

    #[test]
    fn the_content_type_tells_the_format_where_the_query_does_not() {
        for (kind, format) in
            [("application/x-ndjson", Format::Ndjson), ("text/csv; charset=utf-8", Format::Csv)]
        {
            assert_eq!(parse("", Some(kind)).unwrap().format, format);
        }
        assert_eq!(parse("", Some("application/json")), Err(OptionsFault::NoFormat));
        assert_eq!(parse("", None), Err(OptionsFault::NoFormat));
    }

    #[test]
    fn every_wrong_option_is_named() {
        let faults = parse("format=xml&mode=x&on_error=&dry_run=maybe&wait=soon", None);
        let Err(OptionsFault::Faults(faults)) = faults else { panic!("{faults:?}") };
        assert_eq!(faults.len(), 5);
    }
}
