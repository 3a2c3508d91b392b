//! Commands for operators and developers: generate load, verify it, look at a ring or at gossip, move rings to another store,
//! check a configuration.

mod args;
mod config;
mod gossip;
mod kv;
mod load;
mod memberlist;
mod migrate;
mod ring;
mod simulate;
mod store;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

use args::{Command, Outcome};

/// A failed command: what to tell the user, on one or more lines.
type Failure = Box<dyn std::error::Error>;

/// Every command, in the order of the help text.
const COMMANDS: &[Command] = &[
    load::COMMAND,
    verify::COMMAND,
    ring::COMMAND,
    simulate::COMMAND,
    kv::WATCH,
    kv::FORGET,
    kv::LIST,
    kv::GET,
    kv::DIFF,
    kv::COPY,
    kv::DELETE,
    memberlist::STATUS,
    memberlist::MEMBERS,
    memberlist::HEAL,
    memberlist::GENERATE,
    memberlist::KEYRING,
    migrate::PLAN,
    migrate::START,
    migrate::STATUS,
    migrate::SWITCH,
    migrate::FINISH,
    migrate::ABORT,
    config::COMMAND,
];

/// Exit status when everything was as it should be; when it was not; when the command line is wrong.
const OK: u8 = 0;
const NOT_OK: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let code = match args::parse(COMMANDS, &args) {
        Outcome::Run(command, parsed) => (command.run)(&parsed).unwrap_or_else(|failure| {
            // A wrong value of a flag is found late, but is no less the command line's fault.
            complain(&format!("ringctl {}: {failure}\n", command.name));
            if failure.is::<args::BadFlag>() { USAGE } else { NOT_OK }
        }),
        Outcome::Help(text) => {
            print(&text);
            OK
        }
        Outcome::Wrong(text) => {
            complain(&text);
            USAGE
        }
    };
    ExitCode::from(code)
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes to standard error.
fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Runs a command that waits for the network.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
