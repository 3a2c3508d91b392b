//! The `store-gateway` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringkit_server::main("store-gateway", &[ringkit_store_gateway::ROLE])
}
