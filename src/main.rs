//! The command line: arguments in, exit code out. The only place that exits.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use turnpike::app::{App, AppError, Ended, Inherited, Source, demo};
use turnpike::client::{ClientError, import, tokens};
use turnpike::config::{Config, ConfigError, Overrides};
use turnpike::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration is wrong (sysexits.h, `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;
/// An address or the store cannot be had (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// A bug of ours (`EX_SOFTWARE`).
const EXIT_BUG: u8 = 70;

/// A command of the admin listener could not be done.
const EXIT_NOT_DONE: u8 = 2;

/// Gateway-side auth and quota enforcement proxy with exact limits.
#[derive(Debug, Parser)]
#[command(name = "turnpike", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Take listeners and store over from the gateway that runs on the same store folder.
        #[arg(long)]
        upgrade: bool,
    },
    /// Check a configuration file and name every fault.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Import credentials from a file, through the admin listener. Exits with 1 when lines have
    /// faults, with 2 when it could not be done.
    Import(import::Arguments),
    /// Make, list and revoke admin tokens, through the admin listener.
    AdminToken {
        #[command(subcommand)]
        action: tokens::Action,
    },
    /// Run a gateway with an upstream, an API and a token to try, in a temporary folder.
    Demo,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config, upgrade } => serve(&config, upgrade),
        Command::Check { config } => match load(&config) {
            Ok(_) => {
                eprintln!("{}: no faults", config.display());
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::from(1),
        },
        Command::Import(arguments) => match import::run(&arguments) {
            Ok(import::Outcome::Clean) => ExitCode::SUCCESS,
            Ok(import::Outcome::Faults) => ExitCode::from(1),
            Ok(import::Outcome::BrokeOff) => ExitCode::from(EXIT_NOT_DONE),
            Err(error) => not_done(&error),
        },
        Command::AdminToken { action } => match tokens::run(&action) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => not_done(&error),
        },
        Command::Demo => end(demo::run()),
    }
}

/// Says why a command of the admin listener was not done.
fn not_done(error: &ClientError) -> ExitCode {
    eprintln!("turnpike: {}", telemetry::chain(error));
    ExitCode::from(EXIT_NOT_DONE)
}

/// The file, with everything that is said instead of it. Faults are told on standard error.
fn load(path: &Path) -> Result<(Source, Config), ConfigError> {
    let read = std::fs::read_to_string(path).map_err(ConfigError::Read);
    let loaded = read.and_then(|text| {
        let overrides = Overrides::from_environment();
        let source = Source { path: path.to_owned(), text, overrides };
        let config = source.config()?;
        Ok((source, config))
    });
    loaded.inspect_err(|error| match error {
        ConfigError::Faults(faults) => {
            for fault in faults {
                eprintln!("{}: {fault}", path.display());
            }
        }
        ConfigError::Read(_) | ConfigError::Syntax(_) => {
            eprintln!("{}: {}", path.display(), telemetry::chain(error));
        }
    })
}

fn serve(path: &Path, upgrade: bool) -> ExitCode {
    let Ok((source, config)) = load(path) else { return ExitCode::from(EXIT_CONFIG) };
    let _log = match telemetry::init(&config.log) {
        Ok(started) => started,
        Err(error) => {
            eprintln!("log: {}", telemetry::chain(&error));
            return ExitCode::from(EXIT_UNAVAILABLE);
        }
    };
    let inherited = match upgrade {
        true => Inherited::take(&config.store.path).map_err(AppError::from),
        false => Ok(Inherited::default()),
    };
    let mut ended = inherited.and_then(|inherited| run(&source, config, inherited, true));
    // Who wanted to take over is gone. What it was started with may be why: this process goes on
    // with what it had.
    while let Ok(Ended::Forsaken(inherited)) = ended {
        ended = match source.config() {
            Ok(config) => run(&source, config, inherited, false),
            Err(error) => Err(AppError::Internal(telemetry::chain(&error))),
        };
    }
    end(ended.map(drop))
}

fn run(
    source: &Source,
    config: Config,
    inherited: Inherited,
    first: bool,
) -> Result<Ended, AppError> {
    let app = App::build_on(config, inherited)?.reloads_from(source.clone());
    let line = serde_json::to_string(app.bound());
    let line = line.map_err(|error| AppError::Internal(error.to_string()))?;
    Ok(app.run(move || {
        if first {
            announce(&line);
        }
    }))
}

/// The one line on standard output: where the gateway listens.
fn announce(line: &str) {
    let mut out = std::io::stdout().lock();
    // Who started us may not care to read it.
    let _unread = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn end(result: Result<(), AppError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("turnpike: {}", telemetry::chain(&error));
    match error {
        AppError::Bind { .. } | AppError::Store(_) | AppError::Log(_) | AppError::Handover(_) => {
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        AppError::Pepper(_) => ExitCode::from(EXIT_CONFIG),
        AppError::Internal(_) => ExitCode::from(EXIT_BUG),
    }
}
