//! The distributor as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringkit_server::main("distributor", &[ringkit_distributor::ROLE])
}
