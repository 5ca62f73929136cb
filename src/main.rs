//! The command line: arguments in, exit code out. The only place that exits.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use turnpike::app::{App, AppError, demo};
use turnpike::config::{Config, ConfigError, Overrides};
use turnpike::telemetry;

/// The configuration is wrong (sysexits.h, `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;
/// An address or the store cannot be had (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// A bug of ours (`EX_SOFTWARE`).
const EXIT_BUG: u8 = 70;

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
    },
    /// Check a configuration file and name every fault.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a gateway with an upstream, an API and a token to try, in a temporary folder.
    Demo,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => serve(&config),
        Command::Check { config } => match load(&config) {
            Ok(_) => {
                eprintln!("{}: no faults", config.display());
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::from(1),
        },
        Command::Demo => end(demo::run()),
    }
}

fn load(path: &std::path::Path) -> Result<Config, ConfigError> {
    Config::load(path, &Overrides::from_environment()).inspect_err(|error| match error {
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

fn serve(path: &std::path::Path) -> ExitCode {
    let Ok(config) = load(path) else { return ExitCode::from(EXIT_CONFIG) };
    let _log = match telemetry::init(&config.log) {
        Ok(started) => started,
        Err(error) => {
            eprintln!("log: {}", telemetry::chain(&error));
            return ExitCode::from(EXIT_UNAVAILABLE);
        }
    };
    end(App::build(config).and_then(|app| {
        let line = serde_json::to_string(app.bound());
        let line = line.map_err(|error| AppError::Internal(error.to_string()))?;
        app.run(move || announce(&line));
        Ok(())
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
        AppError::Bind { .. } | AppError::Store(_) | AppError::Log(_) => {
            ExitCode::from(EXIT_UNAVAILABLE)
        }
        AppError::Pepper(_) => ExitCode::from(EXIT_CONFIG),
        AppError::Internal(_) => ExitCode::from(EXIT_BUG),
    }
}
