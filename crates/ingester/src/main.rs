//! The ingester as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringkit_server::main("ingester", &[ringkit_ingester::ROLE])
}
