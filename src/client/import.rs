//! `turnpike import`: sends a file, follows what becomes of it, and says so.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::http::{Listener, Sent, Upload, escaped};
use super::{ClientError, Target, block_on};

/// How often an import that goes on after its file has arrived is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is imported, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The file: NDJSON, or CSV; `-` is standard input.
    file: PathBuf,
    /// `ndjson` or `csv`; by the file's name where left out.
    #[arg(long)]
    format: Option<String>,
    /// Check every line and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Apply no line when one has a fault.
    #[arg(long)]
    abort: bool,
    /// Refuse tokens that are there with other contents, instead of changing them.
    #[arg(long)]
    create: bool,
    /// The file is the whole list of the app: delete its tokens that no line names.
    #[arg(long, requires = "app", conflicts_with = "create")]
    replace: bool,
    /// The app of lines that name none.
    #[arg(long)]
    app: Option<String>,
    /// The plan of lines that name none.
    #[arg(long)]
    plan: Option<String>,
    /// The products of lines that name none, with commas.
    #[arg(long)]
    products: Option<String>,
    /// What stands for a usage plan of Amazon's API Gateway: USAGEPLAN=PLAN:PRODUCT,PRODUCT.
    #[arg(long, value_name = "ID=PLAN:PRODUCTS")]
    map: Vec<String>,
    /// Where lines with faults and warnings are written; FILE.errors.ndjson where left out.
    #[arg(long)]
    errors: Option<PathBuf>,
}

/// How an import ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every line is as it should be.
    Clean,
    /// Some lines have faults.
    Faults,
    /// It broke off.
    BrokeOff,
}

/// Imports a file.
///
/// # Errors
/// When it could not be sent, or not be read at all.
pub fn run(arguments: &Arguments) -> Result<Outcome, ClientError> {
    block_on(import(arguments))
}

async fn import(arguments: &Arguments) -> Result<Outcome, ClientError> {
    let listener = Listener::of(&arguments.target)?;
    let path = format!("/v1/imports?{}", query(arguments)?);
    let bar = ProgressBar::no_length();
    let upload = upload(&arguments.file, bar.clone())?;
    let (status, mut report) = listener.answer(Method::POST, &path, Sent::File(upload)).await?;
    let Some(id) = report.get("ID").and_then(Value::as_u64) else {
        bar.finish_and_clear();
        return Err(refusal(status.as_u16(), &report));
    };
    bar.set_style(style("{spinner} {msg}"));
    while text(&report, "Status") == "running" {
        bar.set_message(format!("{} lines applied", number(&report, "Total")));
        bar.tick();
        tokio::time::sleep(LOOK_EVERY).await;
        report = listener.json(Method::GET, &format!("/v1/imports/{id}"), Sent::Nothing).await?;
    }
    bar.finish_and_clear();
    let told = number(&report, "Failed") + number(&report, "Warnings");
    let mut errors = None;
    if 0 < told {
        let to = arguments.errors.clone().unwrap_or_else(|| beside(&arguments.file));
        save(&listener, id, &to).await?;
        errors = Some(to);
    }
    summary(&report, errors.as_deref());
    Ok(match text(&report, "Status") {
        "completed" => Outcome::Clean,
        "completed_with_errors" | "aborted" => Outcome::Faults,
        _ => Outcome::BrokeOff,
    })
}

fn query(arguments: &Arguments) -> Result<String, ClientError> {
    let ending = arguments.file.extension().and_then(|ending| ending.to_str());
    let guessed = match ending.map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => Some("csv"),
        Some("ndjson" | "jsonl" | "json") => Some("ndjson"),
        Some(_) | None => None,
    };
    let format = arguments.format.as_deref().or(guessed);
    let unknown = || ClientError::Argument("say --format ndjson or --format csv".to_owned());
    let mut query = format!("format={}", escaped(format.ok_or_else(unknown)?));
    let mut add = |name: &str, value: &str| {
        query.push_str(&format!("&{}={}", escaped(name), escaped(value)));
    };
    for (flag, name, value) in [
        (arguments.dry_run, "dry_run", "true"),
        (arguments.abort, "on_error", "abort"),
        (arguments.create, "mode", "create"),
        (arguments.replace, "mode", "replace_app"),
    ] {
        if flag {
            add(name, value);
        }
    }
    for (name, value) in
        [("app", &arguments.app), ("plan", &arguments.plan), ("products", &arguments.products)]
    {
        if let Some(value) = value {
            add(name, value);
        }
    }
    for map in &arguments.map {
        let parts = map.split_once('=').and_then(|(id, to)| Some((id, to.split_once(':')?)));
        let (id, (plan, products)) = parts
            .ok_or_else(|| ClientError::Argument("--map must be like c7y23b=3:2,5".to_owned()))?;
        add(&format!("map.plan.{id}"), plan);
        add(&format!("map.products.{id}"), products);
    }
    Ok(query)
}

fn upload(path: &Path, bar: ProgressBar) -> Result<Upload, ClientError> {
    let failed = |error| ClientError::file(path, "read", error);
    let from: Box<dyn Read + Send> = if path == Path::new("-") {
        bar.set_style(style("{spinner} {bytes} sent, {bytes_per_sec}"));
        Box::new(std::io::stdin())
    } else {
        let file = File::open(path).map_err(failed)?;
        bar.set_length(file.metadata().map_err(failed)?.len());
        bar.set_style(style("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left"));
        Box::new(file)
    };
    Ok(Upload { from, told: Box::new(move |sent| bar.set_position(sent)), sent: Arc::default() })
}

/// A template that cannot be read is a bar without one.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn beside(file: &Path) -> PathBuf {
    if file == Path::new("-") {
        return PathBuf::from("import.errors.ndjson");
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".errors.ndjson");
    PathBuf::from(name)
}

async fn save(listener: &Listener, id: u64, to: &Path) -> Result<(), ClientError> {
    let failed = |error| ClientError::file(to, "written", error);
    let file = std::io::BufWriter::new(File::create(to).map_err(failed)?);
    let copied = listener.copy(&format!("/v1/imports/{id}/errors"), file).await?;
    copied.map_err(failed)
}

fn refusal(status: u16, report: &Value) -> ClientError {
    let errors = report.get("errors").and_then(Value::as_array);
    let texts: Vec<_> = errors.into_iter().flatten().filter_map(Value::as_str).collect();
    ClientError::Refused { status, text: texts.join("; ") }
}

/// What became of the file, on standard output.
fn summary(report: &Value, errors: Option<&Path>) {
    let mut table = String::new();
    let mut row = |name: &str, value: String| {
        table.push_str(&format!("{name:<12}{value:>24}\n"));
    };
    let dry = report.get("DryRun") == Some(&Value::Bool(true));
    row("import", format!("{}{}", number(report, "ID"), if dry { " (dry run)" } else { "" }));
    row("status", text(report, "Status").to_owned());
    for name in ["Total", "Created", "Updated", "Unchanged", "Deleted", "Failed", "Warnings"] {
        row(&name.to_lowercase(), number(report, name).to_string());
    }
    row("lines/s", number(report, "LinesPerSecond").to_string());
    for (name, texts) in [("reason", report.get("Reason")), ("note", report.get("Notes"))] {
        let texts: Vec<&str> = match texts {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(_) | None => Vec::new(),
        };
        for text in texts {
            table.push_str(&format!("{name}: {text}\n"));
        }
    }
    if let Some(errors) = errors {
        table.push_str(&format!("faults and warnings: {}\n", errors.display()));
    }
    // Who started us may not care to read it.
    let _unread = std::io::stdout().lock().write_all(table.as_bytes());
}

fn number(report: &Value, name: &str) -> u64 {
    report.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn text<'r>(report: &'r Value, name: &str) -> &'r str {
    report.get(name).and_then(Value::as_str).unwrap_or_default()
}
